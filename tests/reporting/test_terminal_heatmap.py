"""The heatmap says the text itself, in colours that mean something, within the terminal's width."""

import io

import pytest
from rich.console import Console

from tokenloom.reporting.terminal_heatmap import (
    CHANGES,
    LEVELS,
    change_legend,
    change_map,
    colour,
    colour_of_change,
    heatmap,
    legend,
)

TOKENS = [{"text": text, "probability": p} for text, p in [(" night", 0.9), ("\n", 0.2), (" and", 0.0005)] * 30]


def drawn(*things, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor", highlight=False)
    for thing in things:
        console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("probability", "background"),
    [(1.0, LEVELS[0][1]), (0.3, LEVELS[1][1]), (0.001, LEVELS[3][1]), (0.0, LEVELS[-1][1])],
)
def test_a_colour_stands_for_a_range_of_probabilities(probability, background):
    assert colour(probability) == background


def test_the_text_is_there_and_line_ends_are_seen():
    shown = heatmap("It was", TOKENS[:3])
    assert shown.plain == "It was night↵\n and"


@pytest.mark.parametrize("width", [80, 20])
def test_no_line_is_longer_than_the_terminal(width):
    console = Console(width=width, file=io.StringIO())
    console.print(heatmap("It was", TOKENS), legend())
    assert max(map(len, console.file.getvalue().splitlines())) <= width  # type: ignore[attr-defined]


def test_a_terminal_gets_colours():
    assert "\x1b[" in drawn(heatmap("It was", TOKENS), legend())


@pytest.mark.parametrize(("difference", "row"), [(2.0, 0), (0.1, 1), (0.0, 2), (-0.1, 2), (-0.5, 3), (-30.0, 4)])
def test_a_colour_stands_for_a_range_of_changes(difference, row):
    assert colour_of_change(difference) == CHANGES[row][1]


def test_what_is_alike_keeps_its_colour():
    parts = [{"text": " night", "difference": 0.0}, {"text": "\n", "difference": -2.0}]
    shown = drawn(change_map("It was", parts), change_legend())
    assert shown.startswith("It was night\x1b[")
