"""The Sphinx extension that inserts the executed cells into the pages under docs/chapter."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sphinx.errors import ExtensionError

from scripts.chapter.cells import LANGUAGES, page_names
from scripts.chapter.execution import Outputs, run_page
from scripts.chapter.pages import ChapterError, render_page
from scripts.chapter.stored import StoredError

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _insert_cells)
    # The cells of a page are executed once for both languages, so all pages are read in one process.
    return {"parallel_read_safe": False, "parallel_write_safe": True}


def _insert_cells(app: Sphinx, document: str, source: list[str]) -> None:
    folder, _, page = document.rpartition("/")
    if folder in {f"chapter/{language}" for language in LANGUAGES} and page in page_names():
        try:
            source[0] = render_page(page, folder[-2:], _outputs(page))
        except (ChapterError, StoredError) as error:
            raise ExtensionError(str(error)) from error


@cache
def _outputs(page: str) -> Outputs:
    return run_page(page)
