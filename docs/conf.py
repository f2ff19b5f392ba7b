"""Sphinx's configuration: `make docs` builds this folder into the site.

Pages are Markdown. Those in `reference/` and `project/` are written by `generated_pages.py` at the start of a build.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.search.en import SearchEnglish

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

_JAPANESE = r"\u3005\u3040-\u30ff\u3400-\u9fff"  # 々, kana, kanji
_RUN = re.compile(f"[{_JAPANESE}]+|[^{_JAPANESE}]+")
# The same for a query, in the browser.
_SPLITTER = f"""
var splitQuery = (query) => query
  .split(/[^\\p{{Letter}}\\p{{Number}}_]+/gu)
  .flatMap((word) => word.match(/[{_JAPANESE}]+|[^{_JAPANESE}]+/g) || [])
  .flatMap((run) => /^[{_JAPANESE}]{{2}}/.test(run) ? [...run].slice(1).map((c, n) => [...run][n] + c) : [run]);
"""


class SearchEnglishAndJapanese(SearchEnglish):
    """The search index of English pages, with all pairs of characters of Japanese text, which has no spaces.

    A query is divided in the same way, so that a word is found in any context, without a dictionary.
    """

    js_splitter_code = _SPLITTER

    def split(self, input: str) -> list[str]:
        return [part for word in super().split(input) for run in _RUN.findall(word) for part in _parts(run)]


def _parts(run: str) -> list[str]:
    """The pairs of characters of a Japanese run, and each alone; otherwise the word."""
    if not re.match(f"[{_JAPANESE}]", run):
        return [run]
    return [*run, *(first + second for first, second in pairwise(run))]


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
