"""The heatmap shows the whole text, colored by level, within the width of the terminal."""

import io
import math

import pytest
from rich.console import Console

from tokenloom.evaluation.comparison import ComparedModel, ComparedNats, Comparison, WordPart
from tokenloom.evaluation.inspection import Inspection, ScoredToken, Token
from tokenloom.evaluation.measurement import Measurement
from tokenloom.reporting.terminal_heatmap import (
    CHANGES,
    LEVELS,
    change_color,
    change_legend,
    change_map,
    heatmap,
    legend,
    probability_color,
)

TOKENS = [ScoredToken(0, t, math.log(p), 1, 0.0, ()) for t, p in [(b" night", 0.9), (b"\n", 0.2), (b" and", 5e-4)] * 30]
TOTAL = Measurement(nats=1.0, tokens=90, context=8, stride=8)
INSPECTION = Inspection(TOTAL, Token(0, b"It was"), tuple(TOKENS))


def drawn(*things, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor", highlight=False)
    for thing in things:
        console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("probability", "background"),
    [(1.0, LEVELS[0][1]), (0.3, LEVELS[1][1]), (0.001, LEVELS[3][1]), (0.0, LEVELS[-1][1])],
)
def test_a_color_stands_for_a_range_of_probabilities(probability, background):
    assert probability_color(probability) == background


def test_the_text_is_complete_and_line_ends_are_visible():
    shown = heatmap(Inspection(TOTAL, Token(0, b"It was"), tuple(TOKENS[:3])))
    assert shown.plain == "It was night↵\n and"


@pytest.mark.parametrize("width", [80, 20])
def test_no_line_is_longer_than_the_terminal(width):
    console = Console(width=width, file=io.StringIO())
    console.print(heatmap(INSPECTION), legend())
    assert max(map(len, console.file.getvalue().splitlines())) <= width  # type: ignore[attr-defined]


def test_a_terminal_gets_colors():
    assert "\x1b[" in drawn(heatmap(INSPECTION), legend())


@pytest.mark.parametrize(("difference", "row"), [(2.0, 0), (0.1, 1), (0.0, 2), (-0.1, 2), (-0.5, 3), (-30.0, 4)])
def test_a_color_stands_for_a_range_of_differences(difference, row):
    assert change_color(difference) == CHANGES[row][1]


def test_parts_with_similar_predictions_are_not_colored():
    parts = (WordPart(" night", 6, ComparedNats(3.0, 3.0)), WordPart("\n", 12, ComparedNats(3.0, 1.0)))
    models = (ComparedModel("A", TOTAL), ComparedModel("B", TOTAL))
    shown = drawn(change_map(Comparison(models, "word", "It was", parts, ())), change_legend())
    assert shown.startswith("It was night\x1b[")


def test_control_characters_in_the_text_do_not_reach_the_terminal():
    shown = heatmap(
        Inspection(TOTAL, Token(0, b"\x1b]0;title\x07"), (ScoredToken(0, b"\r\x1b[2J\t", -1.0, 1, 0.0, ()),))
    )
    assert shown.plain == "␛]0;title␇␍␛[2J→\t"
