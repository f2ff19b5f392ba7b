"""The heatmap shows the whole text, colored by level, within the width of the terminal."""

import io
import math

import pytest
from rich.color import Color
from rich.console import Console
from rich.style import Style

from tokenloom.evaluation.comparison import ComparedModel, ComparedNats, Comparison, WordPart
from tokenloom.evaluation.inspection import Inspection, ScoredToken, Token
from tokenloom.evaluation.measurement import Measurement
from tokenloom.reporting.terminal_heatmap import (
    CHANGES,
    LEVELS,
    can_color,
    change_legend,
    change_map,
    heatmap,
    legend,
    level_of,
)

TOKENS = [ScoredToken(0, t, math.log(p), 1, 0.0, ()) for t, p in [(b" night", 0.9), (b"\n", 0.2), (b" and", 5e-4)] * 30]
TOTAL = Measurement(nats=1.0, tokens=90, context=8, stride=8)
INSPECTION = Inspection(TOTAL, Token(0, b"It was"), tuple(TOKENS))
WORDS = (
    WordPart(" night", 6, ComparedNats(3.0, 3.0)),
    WordPart(" fell", 11, ComparedNats(3.0, 1.0)),
    WordPart(" late", 16, ComparedNats(1.0, 3.0)),
)
COMPARISON = Comparison((ComparedModel("A", TOTAL), ComparedModel("B", TOTAL)), "word", "It was", WORDS, ())
# The colors of xterm: those of other terminals differ, and are chosen by their themes.
XTERM = {
    "black": (0, 0, 0),
    "yellow": (205, 205, 0),
    "cyan": (0, 205, 205),
    "bright_yellow": (255, 255, 0),
    "bright_cyan": (0, 255, 255),
    "bright_white": (255, 255, 255),
}


def terminal(width=80, **options) -> Console:
    options = {"color_system": "256"} | options
    return Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False, **options)


def drawn(console: Console, *things) -> str:
    for thing in things:
        console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("probability", "row"), [(1.0, 0), (0.3, 1), (0.001, 3), (0.0, 4)])
def test_a_level_stands_for_a_range_of_probabilities(probability, row):
    assert level_of(probability, LEVELS) == LEVELS[row]


def test_the_text_is_complete_and_line_ends_are_visible():
    shown = heatmap(Inspection(TOTAL, Token(0, b"It was"), tuple(TOKENS[:3])), terminal())
    assert shown.plain == "It was night↵\n and"


@pytest.mark.parametrize("width", [80, 20])
def test_no_line_is_longer_than_the_terminal(width):
    console = Console(width=width, file=io.StringIO())
    console.print(heatmap(INSPECTION, console), legend(console))
    assert max(map(len, console.file.getvalue().splitlines())) <= width  # type: ignore[attr-defined]


@pytest.mark.parametrize("system", ["256", "truecolor", "standard"])
def test_a_terminal_gets_colors(system):
    console = terminal(color_system=system)
    assert can_color(console)
    assert "\x1b[" in drawn(console, heatmap(INSPECTION, console), legend(console))


@pytest.mark.parametrize(
    ("difference", "row"), [(2.0, 0), (0.1, 1), (0.0, 2), (-0.1, 2), (-0.5, 3), (-30.0, 4), (-math.inf, 4)]
)
def test_a_level_stands_for_a_range_of_differences(difference, row):
    assert level_of(difference, CHANGES) == CHANGES[row]


def test_a_difference_that_is_not_a_number_has_no_level():
    assert level_of(math.nan, CHANGES) is None


def test_parts_with_similar_predictions_are_not_colored():
    console = terminal()
    shown = drawn(console, change_map(COMPARISON, console), change_legend(console))
    assert shown.startswith("It was night\x1b[")


def test_without_colors_lines_still_show_what_is_better_and_worse(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = terminal()
    assert not can_color(console)
    shown = drawn(console, change_map(COMPARISON, console))
    assert shown == "It was night\x1b[1;53m fell\x1b[0m\x1b[1;4m late\x1b[0m\n"  # 53: overline, 4: underline


def rgb(color: Color) -> tuple[int, int, int]:
    if color.name in XTERM:
        return XTERM[color.name]
    return tuple(color.get_truecolor())


def luminance(color: tuple[int, int, int]) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    linear = [byte / 255 / 12.92 if byte / 255 <= 0.04045 else ((byte / 255 + 0.055) / 1.055) ** 2.4 for byte in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def colors_of(style: str) -> tuple[float, float]:
    """The luminance of letters and background."""
    parsed = Style.parse(style)
    return luminance(rgb(parsed.color)), luminance(rgb(parsed.bgcolor))


@pytest.mark.parametrize(
    "style", [style for level in (*LEVELS, *CHANGES) for style in (level.style, level.basic) if style]
)
def test_letters_have_contrast(style):
    darker, lighter = sorted(colors_of(style))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_probabilities_are_one_hue_from_light_to_dark():
    backgrounds = [rgb(Style.parse(level.style).bgcolor) for level in LEVELS]
    luminances = [luminance(color) for color in backgrounds]
    assert luminances == sorted(luminances, reverse=True)
    assert all(red > green >= blue for red, green, blue in backgrounds[1:])  # orange, behind white


def test_no_level_is_told_from_another_by_red_and_green():
    names = {name for level in (*LEVELS, *CHANGES) for name in (level.style + " " + level.basic).split()}
    assert not {name for name in names if "red" in name or "green" in name}
    for level in CHANGES:
        is_marked = "underline" in level.style, "overline" in level.style
        assert is_marked == ("worse" in level.label, "better" in level.label)


def test_control_characters_in_the_text_do_not_reach_the_terminal():
    shown = heatmap(
        Inspection(TOTAL, Token(0, b"\x1b]0;title\x07"), (ScoredToken(0, b"\r\x1b[2J\t", -1.0, 1, 0.0, ()),)),
        terminal(),
    )
    assert shown.plain == "␛]0;title␇␍␛[2J→\t"
