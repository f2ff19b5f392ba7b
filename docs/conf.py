"""Sphinx's configuration: `make docs` builds this folder into the site.

Pages are Markdown. Those in `reference/` and `project/` are written by `generated_pages.py` at the start of a build.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.search.en import SearchEnglish
from sphinx.search.ja import DefaultSplitter

import tokenloom

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

project = "Tokenloom"
author = "The Tokenloom authors"
project_copyright = author
version = release = tokenloom.__version__

extensions = ["myst_parser"]
# The cells of the chapter are executed by scripts that a copy of this folder alone does not have.
if (ROOT / "scripts" / "chapter").is_dir():
    extensions.append("scripts.chapter.sphinx_pages")
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False

_JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")


class SearchEnglishAndJapanese(SearchEnglish):
    """The search index of English pages, to which the words of Japanese text are added, which has no spaces."""

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self._splitter = DefaultSplitter({})

    def split(self, text: str) -> list[str]:
        words = super().split(text)
        japanese = [word for word in words if _JAPANESE.search(word)]
        return words + [part for word in japanese for part in self._splitter.split(word)]


def language_of(page: str) -> str:
    """The language of a page: Japanese in a folder `ja`, otherwise English."""
    return "ja" if "ja" in page.split("/")[:-1] else "en"


def setup(app: Sphinx) -> None:
    from generated_pages import write_pages

    def set_language(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
        context["language"] = language_of(page)

    app.add_search_language(SearchEnglishAndJapanese)
    app.connect("config-inited", lambda *_: write_pages(DOCS))
    app.connect("html-page-context", set_language)
