"""The notebooks of the chapter: the prose of a page in one language, and its cells, without outputs.

Outputs are left out: a notebook is then a function of its sources, so that a test can tell whether it is current, and
a reader sees figures of the own machine. The executed pages are on the site.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scripts.chapter.cells import LANGUAGES, NOTEBOOKS, Cell, page_names, read_cells, read_prose

MARKER = re.compile(r"^<!-- cell: (?P<name>[a-z0-9-]+)(?:; alt: (?P<alt>[^>]+?))? -->$", re.MULTILINE)
TAGS = {"run": [], "stored": ["takes-minutes"], "network": ["downloads"]}


def write_notebooks() -> list[Path]:
    """Write the notebooks of all pages that have cells; returns their files."""
    files = []
    for page in page_names():
        for language in LANGUAGES if read_cells(page) else ():
            file = notebook_file(page, language)
            file.write_text(notebook_text(page, language), encoding="utf-8")
            files.append(file)
    return files


def notebook_file(page: str, language: str) -> Path:
    """The file of a notebook: NAME.ipynb in English, NAME.ja.ipynb in Japanese."""
    return NOTEBOOKS / (f"{page}.ipynb" if language == "en" else f"{page}.{language}.ipynb")


def notebook_text(page: str, language: str) -> str:
    """The notebook of a page as JSON."""
    cells = {cell.name: cell for cell in read_cells(page)}
    parts: list[dict[str, Any]] = []
    prose, end = read_prose(page, language), 0
    for marker in MARKER.finditer(prose):
        parts += _markdown(prose[end : marker.start()], language, len(parts))
        parts.append(_code(cells[marker["name"]]))
        end = marker.end()
    parts += _markdown(prose[end:], language, len(parts))
    document = {
        "cells": parts,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _markdown(text: str, language: str, number: int) -> list[dict[str, Any]]:
    text = _with_links_of_notebooks(text.strip(), language)
    cell = {"cell_type": "markdown", "id": f"text-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
    return [cell] if text else []


def _code(cell: Cell) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": cell.name,
        "metadata": {"tags": TAGS[cell.kind]} if TAGS[cell.kind] else {},
        "outputs": [],
        "source": cell.code.splitlines(keepends=True),
    }


def _with_links_of_notebooks(text: str, language: str) -> str:
    """Prose whose links lead from the folder of the notebooks."""
    suffix = ".ipynb" if language == "en" else f".{language}.ipynb"
    with_cells = {page for page in page_names() if read_cells(page)}

    def link(match: re.Match[str]) -> str:
        page = match[1]
        return f"]({page}{suffix})" if page in with_cells else f"](../chapter/{language}/{page}.md)"

    text = re.sub(r"\]\(([\w-]+)\.md\)", link, text)
    return text.replace("](../glossary.md)", "](../chapter/glossary.md)").replace("](../../", "](../")
