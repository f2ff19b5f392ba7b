"""The code cells of a page, read from docs/chapter/cells: one Python file a page, cells begin with `# %% NAME`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CHAPTER = ROOT / "docs" / "chapter"
NOTEBOOKS = ROOT / "docs" / "notebooks"
LANGUAGES = ("en", "ja")

_HEADER = re.compile(
    r"^# %% (?P<name>[a-z0-9-]+)(?: \[(?P<kind>stored|network)(?:: (?P<values>[\w ]+))?\])?$", re.MULTILINE
)


@dataclass(frozen=True)
class Cell:
    """A code cell.

    `kind` says where its output comes from. "run": it is executed at every build. "stored": it takes minutes, and its
    output is in stored.json. "network": it downloads, and the output is the one that the chapter prints.
    """

    name: str
    code: str
    kind: str
    values: tuple[str, ...] = ()
    """Variables of a stored cell that later cells need."""


def page_names() -> list[str]:
    """The pages in order."""
    return sorted(path.stem for path in (CHAPTER / LANGUAGES[0]).glob("*.md"))


def read_cells(page: str) -> list[Cell]:
    """The cells of a page in order; none if it has no code."""
    file = CHAPTER / "cells" / f"{page}.py"
    if not file.exists():
        return []
    source = file.read_text(encoding="utf-8")
    headers = list(_HEADER.finditer(source))
    ends = [header.start() for header in headers[1:]] + [len(source)]
    return [
        Cell(
            header["name"],
            source[header.end() : end].strip(),
            header["kind"] or "run",
            tuple((header["values"] or "").split()),
        )
        for header, end in zip(headers, ends, strict=True)
    ]


def code_hash(cells: list[Cell], name: str) -> str:
    """The hash of the code that decides the output of a cell: its own, and that of the cells before it."""
    position = [cell.name for cell in cells].index(name)
    return hashlib.sha256("\n\n".join(cell.code for cell in cells[: position + 1]).encode()).hexdigest()


def read_prose(page: str, language: str) -> str:
    """The Markdown of a page, in which `<!-- cell: NAME -->` stands for a cell."""
    return (CHAPTER / language / f"{page}.md").read_text(encoding="utf-8")
