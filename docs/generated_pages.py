"""The pages that are not written by hand: the reference, and the documents in the root of the repository.

`write_pages` is called at the start of a build.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import reference_commands
import reference_files
import reference_python
import reference_settings

REFERENCE: Mapping[str, Callable[[], str]] = {
    "reference/commands": reference_commands.page,
    "reference/configuration": reference_settings.configuration_page,
    "reference/presets": reference_settings.presets_page,
    "reference/python": reference_python.page,
    "reference/files": reference_files.page,
}
# Documents that other places expect in the root of the repository, and their pages.
COPIES: Mapping[str, str] = {
    "ARCHITECTURE.md": "project/architecture",
    "CHANGELOG.md": "project/changelog",
    "CONTRIBUTING.md": "project/contributing",
    "SECURITY.md": "project/security",
    "benchmarks/RESULTS.md": "project/results",
}
ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def pages() -> dict[str, str]:
    """The Markdown of every generated page, by the path of the page without its suffix."""
    return {name: make() for name, make in REFERENCE.items()} | {page: copy(file) for file, page in COPIES.items()}


def write_pages(docs: Path) -> None:
    """Write the pages below the folder `docs`; those that have not changed keep their time, so Sphinx skips them."""
    for name, text in pages().items():
        file = docs / f"{name}.md"
        file.parent.mkdir(exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8", newline="\n")


def copy(file: str) -> str:
    """A document of the repository with its links changed to those of its page."""
    page = COPIES[file]

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), found[1]))
        target = _page_of(path)
        return posixpath.relpath(target, posixpath.dirname(page)) + (found[2] or "")

    return _LINK.sub(link, (ROOT / file).read_text(encoding="utf-8"))


def _page_of(path: str) -> str:
    """Where a file of the repository is, seen from the folder of the documentation."""
    if path in COPIES:
        return f"{COPIES[path]}.md"
    if path.startswith("docs" + "/"):
        inside = path.removeprefix("docs/")
        return f"{inside}/index.md" if os.path.isdir(ROOT / path) else inside
    return f"../{path}"
