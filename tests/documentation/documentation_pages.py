"""The pages of the documentation, those that are generated included, without building the site."""

import functools
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))  # the scripts of the documentation are not part of the package

from generated_pages import COPIES, REFERENCE, pages  # noqa: E402

FENCE = re.compile(r"^ *```.*?^ *```", flags=re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#+) (.+)$", flags=re.MULTILINE)
# Pages whose commands and snippets run elsewhere: the chapter is executed by its own build.
EXECUTED_ELSEWHERE = ("chapter/",)


@functools.cache
def written_pages() -> dict[str, str]:
    """The Markdown of the pages in the repository, by their path without the suffix."""
    generated = ("_build/", *{f"{name.split('/')[0]}/" for name in (*REFERENCE, *COPIES.values())})
    names = {file.relative_to(DOCS).with_suffix("").as_posix(): file for file in sorted(DOCS.rglob("*.md"))}
    return {name: file.read_text(encoding="utf-8") for name, file in names.items() if not name.startswith(generated)}


@functools.cache
def all_pages() -> dict[str, str]:
    return written_pages() | pages()


def slugs(markdown: str) -> set[str]:
    """The anchors of the headings of a page, as GitHub and MyST make them."""
    found: dict[str, int] = {}
    anchors: set[str] = set()
    for heading in HEADING.finditer(FENCE.sub("", markdown)):
        slug = _slug(heading[2])
        anchors.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return anchors


def part_of(markdown: str, anchor: str) -> str:
    """The text below the heading with an anchor, on one line, up to the next heading of its level; "" for none."""
    text = FENCE.sub(lambda block: block[0].replace("\n#", "\n "), markdown)  # comments are no headings
    headings = list(HEADING.finditer(text))
    for number, heading in enumerate(headings):
        if _slug(heading[2]) == anchor:
            ends = (other.start() for other in headings[number + 1 :] if len(other[1]) <= len(heading[1]))
            return " ".join(text[heading.end() : next(ends, len(text))].split())
    return ""


def _slug(title: str) -> str:
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title.strip())
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
