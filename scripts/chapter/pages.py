"""The pages of the chapter: prose in which code, outputs and plots stand in place of the markers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from scripts.chapter.cells import LANGUAGES, Cell, read_cells, read_prose
from scripts.chapter.figures import FIGURES, printed_text, problems, unsupported_numbers
from scripts.chapter.notebooks import MARKER, notebook_file
from scripts.chapter.stored import COMMAND, read_stored

LABELS = {
    "en": {
        "run": "Output",
        "stored": f"Stored output, computed on {{origin}}. Renew it with `{COMMAND}`",
        "network": "Output as the chapter prints it: this cell downloads 500 MB, and the build does not",
        "other": "日本語",
        "notebook": "Notebook",
    },
    "ja": {
        "run": "出力",
        "stored": f"保存済みの出力({{origin}})。更新コマンド: `{COMMAND}`",
        "network": "本に記載されている出力。500 MBのダウンロードを伴うため、ビルドでは実行しない",
        "other": "English",
        "notebook": "ノートブック",
    },
}
FACTS = """
10.7722 38.6 0.0001 0.001 497,759,232 1,419,292,672 184,320 1908 3.3046 3.1195 1558
1280 1600 0.6 50,000 2400 6200 3860
"""
"""Numbers of the prose that no cell prints: facts of the chapter, and rounded counts in Japanese units."""


class ChapterError(Exception):
    """A page that cannot be built: a figure has changed, or prose and cells do not fit each other."""


def render_page(page: str, language: str, outputs: Mapping[str, list[dict[str, Any]]]) -> str:
    """The Markdown of a page with the outputs of its cells; raises `ChapterError`."""
    cells = {cell.name: cell for cell in read_cells(page)}
    prose = read_prose(page, language)
    wrong = faults(page, outputs)
    if wrong:
        raise ChapterError("\n".join(f"{page}: {fault}" for fault in wrong))
    body = MARKER.sub(lambda marker: _rendered(cells, marker, language, outputs), prose)
    title, _, rest = body.partition("\n")
    return f"{title}\n\n{_links(page, language)}\n{rest}"


def faults(page: str, outputs: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """What is wrong with a page: changed figures, cells missing in a language, numbers that nothing supports."""
    cells = read_cells(page)
    found = problems(cells, dict(outputs))
    texts = [cell.code + printed_text(outputs[cell.name]) for cell in cells]
    known = "\n".join([*texts, *(figure.text for figure in FIGURES.values()), FACTS])
    for language in LANGUAGES:
        prose = read_prose(page, language)
        shown = [marker["name"] for marker in MARKER.finditer(prose)]
        if shown != [cell.name for cell in cells]:
            found.append(f"{language}: the cells are {shown}, expected {[cell.name for cell in cells]}")
        found += [f"{language}: no cell prints the number {number}" for number in unsupported_numbers(prose, known)]
    return found


def _links(page: str, language: str) -> str:
    labels = LABELS[language]
    other = next(each for each in LANGUAGES if each != language)
    links = [f"[{labels['other']}](../{other}/{page}.md)"]
    if read_cells(page):
        links.append(f"[{labels['notebook']}](../../notebooks/{notebook_file(page, language).name})")
    return " · ".join(links)


def _rendered(
    cells: Mapping[str, Cell], marker: re.Match[str], language: str, outputs: Mapping[str, list[dict[str, Any]]]
) -> str:
    cell = cells[marker["name"]]
    parts = [f"```python\n{cell.code}\n```"]
    if cell.kind == "network":
        shown = [_block(FIGURES[cell.name].text)]
    else:
        shown = [text for output in outputs[cell.name] if (text := _output(output, marker["alt"] or ""))]
    if shown:
        label = LABELS[language][cell.kind]
        if cell.kind == "stored":
            label = label.format(origin=read_stored(list(cells.values()), cell.name).origin)
        parts += [f"<small>{label}</small>", *shown] if cell.kind != "run" else shown
    return "\n\n".join(parts)


def _output(output: Mapping[str, Any], alt: str) -> str:
    """An output as Markdown; empty if there is nothing to show."""
    if output["output_type"] == "stream":
        return _block(output["text"]) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        image = base64.b64encode("".join(data["image/svg+xml"]).encode()).decode()
        return f'<img src="data:image/svg+xml;base64,{image}" alt="{escape(alt)}">'
    if "text/html" in data:
        return "".join(data["text/html"]).replace("\n", "&#10;")
    return _block("".join(data["text/plain"])) if "text/plain" in data else ""


def _block(text: str) -> str:
    fence = "````" if "```" in text else "```"
    return f"{fence}text\n{text.rstrip(chr(10))}\n{fence}"
