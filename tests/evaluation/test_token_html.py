"""Inspections and comparisons as HTML: escaped, self-contained, and in the colors of the page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tokenloom
from tokenloom import api
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.evaluation import token_html
from tokenloom.evaluation.token_html import difference_level, heat_level
from tokenloom.weights.load import LoadedModel

PAGE = Path(tokenloom.__file__).parent / "serving" / "page"
THEME = Path(tokenloom.__file__).parent / "reporting" / "page" / "theme.css"
BYTE = load_tokenizer("byte")
TEXT = '<b onclick="x()">&\n\n\x1b[31m\ttail'


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text between tags."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def loaded(model_of, tmp_path):
    return lambda family: LoadedModel(model_of(family, vocab_size=BYTE.vocab_size), BYTE, tmp_path / f"<{family}>")


def test_a_text_cannot_add_elements_or_control_characters(loaded):
    html = api.inspect(loaded("gpt2"), TEXT)._repr_html_()
    found = Elements(html)
    assert {tag for tag, _ in found.tags} == {"div", "style", "p", "i", "span", "br"}
    assert all(set(attributes) <= {"class", "title"} for _, attributes in found.tags)
    assert '<b onclick="x()">&↵↵␛[31m→' in found.text
    assert not re.search(r"[\x00-\x08\n-\x1f]", html)


def test_every_token_has_the_level_of_its_loss_and_its_prediction_as_tooltip(loaded):
    inspection = api.inspect(loaded("gpt2"), "abc")
    spans = [attributes for tag, attributes in Elements(inspection._repr_html_()).tags if tag == "span"]
    assert [span["class"] for span in spans] == ["", *(f"heat-{heat_level(token.nats)}" for token in inspection.tokens)]
    assert f"{inspection.tokens[0].nats:.2f} nats" in spans[1]["title"]
    assert f"rank {inspection.tokens[0].rank}" in spans[1]["title"]


def test_a_comparison_shows_both_models_and_the_side_that_predicts_each_part_better(loaded):
    comparison = api.compare(loaded("gpt2"), loaded("modern"), "a dull boy")
    html = comparison._repr_html_()
    classes = [attributes["class"] for tag, attributes in Elements(html).tags if tag == "span"][1:]
    for part, name in zip(comparison.parts, classes, strict=True):
        level = difference_level(part.nats.difference)
        assert name == ("" if level == 0 else f"better-{-level}" if level < 0 else f"worse-{level}")
    assert "/&lt;gpt2&gt;: loss" in html
    assert "/&lt;modern&gt;: loss" in html


def test_levels_are_those_of_the_page():
    scales = (PAGE / "scales.js").read_text(encoding="utf-8")
    assert f"HEAT_LEVELS = {token_html.HEAT_LEVELS};" in scales
    assert f"DIFFERENCES = [{', '.join(f'{lowest:g}' for lowest in token_html.DIFFERENCES)}];" in scales
    assert [heat_level(nats) for nats in (-1, 0.49, 0.5, 2.5, 12.4, 99, float("nan"))] == [0, 0, 1, 3, 12, 12, 12]
    assert [difference_level(nats) for nats in (-9, -0.1, 0, 0.09, 0.5, 4)] == [-5, -1, 0, 0, 2, 5]


def test_colors_are_those_of_the_page():
    light = THEME.read_text(encoding="utf-8").partition("@media")[0]
    variables = dict(re.findall(r"--([\w-]+): ([^;]+);", light))
    assert variables["heat"] == token_html.HEAT
    assert variables["heat-step"] == f"{token_html.HEAT_STEP}%"
    assert (variables["better"], variables["worse"]) == (token_html.BETTER, token_html.WORSE)


def test_of_a_long_text_only_the_beginning_is_shown(loaded, monkeypatch):
    monkeypatch.setattr(token_html, "MOST_PARTS", 5)
    html = api.inspect(loaded("gpt2"), "x" * 30)._repr_html_()
    assert html.count("<span") == 6
    assert "and 24 more" in html
