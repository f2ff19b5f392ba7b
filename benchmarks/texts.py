"""Texts that the rule of a time budget was not fitted on, for the series "unseen" of benchmarks/recipe.py.

    python benchmarks/texts.py

| name | text | source |
|---|---|---|
| bible-kjv | the King James Bible, a verse per line, 4.4 MB | Debian packages bible-kjv and bible-kjv-text 4.38 |
| django-docs | the documentation of Django, 6.1 MB | docs/**/*.txt of its source distribution 5.2.8 |

Needs `apt-get` and `dpkg` for the first one and pip for the second one. The texts are written to the cache folder of
Tokenloom; one that is there already is not made again, and one that cannot be made does not stop the other. Each has a
fixed sha256.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenloom.data.corpora import cache_folder
from tokenloom.storage import write_bytes

DEBIAN_PACKAGES = ("bible-kjv=4.38", "bible-kjv-text=4.38")
DJANGO = "django==5.2.8"


@dataclass(frozen=True)
class Text:
    """How a text is made in a temporary folder, and the sha256 of the result."""

    make: Callable[[Path], bytes]
    sha256: str


def bible(folder: Path) -> bytes:
    """The Bible as the program `bible` of Debian prints it without formatting: reference and verse on one line."""
    run("apt-get", "download", *DEBIAN_PACKAGES, folder=folder)
    for package in folder.glob("*.deb"):
        run("dpkg", "-x", str(package), str(folder), folder=folder)
    program, data = folder / "usr" / "bin" / "bible", folder / "usr" / "lib"
    command = [str(program), "-f", "-l", "0", "-p", str(data), "-d", "bible.data", "gen1:1-rev22:21"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def django_docs(folder: Path) -> bytes:
    """The documentation of Django, from its source distribution."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder)]
    run(*command, DJANGO, folder=folder)
    (archive,) = folder.glob("*.tar.gz")
    return documents(archive, "docs", ".txt")


def documents(archive: Path, folder: str, suffix: str) -> bytes:
    """The files of a source distribution in its folder `folder` that end in `suffix`, in order of their paths.

    Two newlines stand between two files.
    """
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.isfile() and member.name.endswith(suffix)]
        chosen = sorted((m for m in members if m.name.split("/")[1] == folder), key=lambda member: member.name)
        files = [tar.extractfile(member) for member in chosen]
        return b"\n\n".join(file.read() for file in files if file is not None)


TEXTS = {
    "bible-kjv": Text(bible, "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d"),
    "django-docs": Text(django_docs, "ff7cedc5be957389388b931b7aba839ec091178a4a5e08b8be8f5d26f857244a"),
}


def text_file(name: str) -> Path:
    """Where a text is, or will be."""
    return cache_folder() / "texts" / f"{name}.txt"


def make(name: str) -> Path:
    """The file of a text, made if it does not exist; raises `ValueError` if its content is not the expected one."""
    file, text = text_file(name), TEXTS[name]
    if not file.exists():
        with tempfile.TemporaryDirectory() as folder:
            content = text.make(Path(folder))
        digest = hashlib.sha256(content).hexdigest()
        if digest != text.sha256:
            raise ValueError(f"{name} has the sha256 {digest}, not {text.sha256}. Its source has changed.")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)  # whole or not at all
    return file


def run(*command: str, folder: Path) -> None:
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the texts; returns 1 if one could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    failures = 0
    for name in TEXTS:
        try:
            print(make(name), flush=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            failures += 1
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    return min(1, failures)


if __name__ == "__main__":
    sys.exit(main())
