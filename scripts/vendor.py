"""Fetch the libraries of the page with npm pack, verify them, and write their files and hashes."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import tomli_w

VENDOR = Path(__file__).parent.parent / "src" / "tokenloom" / "serving" / "page" / "vendor"
LIST = VENDOR / "VENDORED.toml"


def main() -> None:
    """Renew the files of every package in the list, whose comment is kept."""
    text = LIST.read_text(encoding="utf-8")
    comment, packages = text.partition("\n\n")[0], tomllib.loads(text)["packages"]
    for package in packages:
        renew(package)
    LIST.write_text(f"{comment}\n\n{tomli_w.dumps({'packages': packages})}", encoding="utf-8")


def renew(package: dict[str, Any]) -> None:
    """Write the files of a package, and set their hashes in its entry."""
    name = f"{package['name']}-{package['version']}"
    with tempfile.TemporaryDirectory() as folder:
        reference = f"{package['name']}@{package['version']}"
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", folder, reference], check=True)
        (archive,) = Path(folder).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if package["integrity"] != f"sha512-{digest}":
            sys.exit(f"{reference} has the integrity sha512-{digest}, not that of {LIST.name}. Check the version.")
        (VENDOR / name).mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for file in package["files"]:
                member = tar.extractfile(f"package/{file['source']}")
                assert member is not None
                content = member.read()
                file["sha256"] = hashlib.sha256(content).hexdigest()
                path = VENDOR / name / file.get("path", Path(file["source"]).name)  # modules import one another by path
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)


if __name__ == "__main__":
    main()
