"""The pages of the chapter: cells are executed, their figures compared, and both languages show them."""

import json
import re

import pytest

from scripts.chapter import stored
from scripts.chapter.cells import CHAPTER, LANGUAGES, page_names, read_cells, read_prose
from scripts.chapter.execution import run_page
from scripts.chapter.figures import FIGURES, UNCOMPARED, Figure, matches, printed_text, problems, unsupported_numbers
from scripts.chapter.notebooks import MARKER
from scripts.chapter.pages import ChapterError, faults, render_page

SHORT_PAGES = ("05-decoding", "09-token-by-token")  # seconds; the other pages compute with a model of 124M parameters

# What Jupyter's packages warn of is not ours.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def executed(texts_folder):
    return {page: run_page(page) for page in SHORT_PAGES}


@pytest.mark.parametrize("page", SHORT_PAGES)
def test_the_figures_of_a_short_page_are_those_of_the_chapter(executed, page):
    assert faults(page, executed[page]) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in page_names() if page not in SHORT_PAGES])
def test_the_figures_of_a_page_are_those_of_the_chapter(page, texts_folder):
    assert faults(page, run_page(page)) == []


def test_a_changed_figure_stops_the_build(executed, monkeypatch):
    monkeypatch.setitem(FIGURES, "pizza", Figure("0.0431", "D"))
    with pytest.raises(ChapterError, match=r"pizza: expected '0.0431', got '0.0430"):
        render_page("05-decoding", "en", executed["05-decoding"])


def test_a_new_printed_value_has_to_be_compared_or_excused(executed, monkeypatch):
    monkeypatch.delitem(FIGURES, "pizza")
    (problem,) = problems(read_cells("05-decoding"), executed["05-decoding"])
    assert problem.startswith("pizza: prints '0.0430")


def test_an_output_that_cannot_be_displayed_is_a_problem(executed):
    failed = {"output_type": "error", "ename": "TypeError", "evalue": "unexpected argument", "traceback": []}
    outputs = executed["05-decoding"] | {"plot-temperatures": [failed]}
    assert problems(read_cells("05-decoding"), outputs) == ["plot-temperatures: unexpected argument"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_shows_code_outputs_and_plots_in_place_of_every_marker(executed, language):
    page = render_page("05-decoding", language, executed["05-decoding"])
    assert "<!-- cell" not in page
    for cell in read_cells("05-decoding"):
        assert f"```python\n{cell.code}\n```" in page
    assert "```text\n0.0430\n```" in page
    (alternative,) = re.findall(r'<img src="data:image/svg\+xml;base64,[\w+/=]+" alt="([^"]+)">', page)
    assert alternative


@pytest.mark.parametrize("language", LANGUAGES)
def test_heatmaps_and_the_training_display_are_on_the_page_as_html(executed, language):
    page = render_page("09-token-by-token", language, executed["09-token-by-token"])
    assert page.count('<div class="tokenloom-text">') == 2
    assert page.count('<div class="tokenloom-run">') == 1


def test_a_kernel_gets_rich_outputs(executed):
    outputs = executed["09-token-by-token"]
    (run,) = [output for output in outputs["train-with-plot"] if output["output_type"] == "display_data"]
    html = "".join(run["data"]["text/html"])
    assert 'aria-valuenow="100"' in html  # the one output, in its final state
    assert "<polyline" in html
    assert "Next steps:" in html
    (heatmap,) = outputs["inspect"]
    assert '<span class="heat-' in "".join(heatmap["data"]["text/html"])
    (difference,) = outputs["compare"]
    assert '<span class="better-' in "".join(difference["data"]["text/html"])


@pytest.mark.parametrize("page", page_names())
def test_both_languages_show_the_same_cells_and_sections(page):
    prose = {language: read_prose(page, language) for language in LANGUAGES}
    cells = [cell.name for cell in read_cells(page)]
    for text in prose.values():
        assert [marker["name"] for marker in MARKER.finditer(text)] == cells
    assert len(re.findall("^#", prose["en"], re.MULTILINE)) == len(re.findall("^#", prose["ja"], re.MULTILINE))


def test_every_cell_has_a_name_of_its_own():
    names = [cell.name for page in page_names() for cell in read_cells(page)]
    assert len(names) == len(set(names))
    assert set(FIGURES) | set(UNCOMPARED) <= set(names)


def test_the_glossary_explains_each_term_in_both_languages():
    rows = [line for line in (CHAPTER / "glossary.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    terms = [[part.strip() for part in row.strip("|").split("|")] for row in rows[2:]]
    assert len(terms) >= 35
    assert all(len(term) == 4 and all(term) for term in terms)
    assert [term[0] for term in terms] == sorted((term[0] for term in terms), key=str.lower)


def test_numbers_of_a_prose_need_a_cell_that_prints_them():
    known = "loss 10.98758347829183, 5,145 tokens, 4.7559e-06"
    assert unsupported_numbers("About 10.99 and 5145 after section 5.1.2, at most 5 times.", known) == []
    assert unsupported_numbers("損失は10.98から", known) == ["10.98"]
    assert unsupported_numbers("It is 6.1 and 5,146.", known) == ["6.1", "5,146"]


def test_figures_of_floating_point_have_a_tolerance():
    figure = Figure("loss 48725.8203", "F")
    assert matches("loss 48725.8672\n", figure)
    assert not matches("loss 48728.0\n", figure)
    assert not matches("cost 48725.8203\n", figure)


def test_stored_outputs_belong_to_the_current_code_and_are_not_edited(tmp_path, monkeypatch):
    cells = read_cells("04-training")
    assert "Step 000085" in printed_text(stored.read_stored(cells, "train").outputs)
    changed = [cell if cell.name != "train" else type(cell)("train", cell.code + "\n", "stored") for cell in cells]
    with pytest.raises(stored.StoredError, match="has changed"):
        stored.read_stored(changed, "train")
    document = json.loads(stored.FILE.read_text(encoding="utf-8"))
    document["cells"]["train"]["values"]["val_losses"][0] = 1.0
    monkeypatch.setattr(stored, "FILE", tmp_path / "stored.json")
    stored.FILE.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(stored.StoredError, match="was edited"):
        stored.read_stored(cells, "train")
