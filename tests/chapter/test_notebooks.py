"""The notebooks of the chapter: current, without outputs, and executable from the first cell to the last."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from scripts.chapter.cells import LANGUAGES, NOTEBOOKS, page_names, read_cells
from scripts.chapter.notebooks import notebook_file, notebook_text

PAGES = [page for page in page_names() if read_cells(page)]

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("page", PAGES)
def test_a_notebook_is_current(page, language):
    text = notebook_file(page, language).read_text(encoding="utf-8")
    assert text == notebook_text(page, language), "renew it: python -m scripts.chapter notebooks"


def test_there_is_no_other_notebook():
    expected = {notebook_file(page, language) for page in PAGES for language in LANGUAGES}
    assert set(NOTEBOOKS.glob("*.ipynb")) == expected


@pytest.mark.parametrize("page", PAGES)
def test_a_notebook_is_valid_and_its_links_lead_to_files(page):
    for language in LANGUAGES:
        notebook = nbformat.reads(notebook_text(page, language), as_version=4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") for cell in notebook.cells)
        prose = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for link in (part.partition(")")[0] for part in prose.split("](")[1:]):
            assert (NOTEBOOKS / link).exists(), link


def test_both_languages_have_the_same_code():
    for page in PAGES:
        code = [
            [cell for cell in json.loads(notebook_text(page, language))["cells"] if cell["cell_type"] == "code"]
            for language in LANGUAGES
        ]
        assert code[0] == code[1]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_notebooks_run_from_the_first_to_the_last(tmp_path, texts_folder):
    for page in PAGES:
        notebook = nbformat.read(notebook_file(page, "ja"), as_version=4)
        resources = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=3600, resources=resources, skip_cells_with_tag="downloads").execute()
