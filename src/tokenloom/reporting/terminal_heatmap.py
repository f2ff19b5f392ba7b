"""Text colored by how well a model predicts it, for the terminal.

Probabilities are one hue from light to dark. Differences are blue and orange, which people who do not distinguish red
from green distinguish, with a line above what is better and below what is worse, which remain without colors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenloom.reporting.formatting import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from tokenloom.evaluation.comparison import Comparison
    from tokenloom.evaluation.inspection import Inspection


@dataclass(frozen=True)
class Level:
    """Values of at least `lowest`, and how text at this level looks."""

    lowest: float
    label: str
    style: str = ""
    """With 256 colors: by number, which no theme of the terminal changes, so that the contrast is known."""
    basic: str = ""
    """With the 16 colors that every terminal has, by name."""


# Of probabilities. Letters are black (16) or white (231).
LEVELS = (
    Level(0.5, "≥ 0.5", "color(16) on color(231)", "black on bright_white"),
    Level(0.1, "≥ 0.1", "color(16) on color(223)", "black on bright_yellow"),
    Level(0.01, "≥ 0.01", "color(16) on color(215)", "black on yellow"),
    Level(0.001, "≥ 0.001", "color(16) on color(208)", "bold black on yellow"),
    Level(0.0, "< 0.001", "color(231) on color(130)", "bold underline black on yellow"),
)
# Of differences in nats, B minus A.
CHANGES = (
    Level(1.0, "≥ 1 nat worse", "bold underline color(16) on color(208)", "bold underline black on yellow"),
    Level(0.1, "≥ 0.1 worse", "underline color(16) on color(223)", "underline black on bright_yellow"),
    Level(-0.1, "similar"),
    Level(-1.0, "≥ 0.1 better", "overline color(16) on color(153)", "overline black on bright_cyan"),
    Level(-float("inf"), "≥ 1 nat better", "bold overline color(16) on color(75)", "bold overline black on cyan"),
)
_MANY_COLORS = ("256", "truecolor")
_VISIBLE_WHITESPACE = str.maketrans({"\n": "↵\n", "\t": "→\t", "\r": "␍"})


def can_color(console: Console) -> bool:
    """Whether the console shows colors; `NO_COLOR` in the environment turns them off."""
    return console.color_system is not None and not console.no_color


def heatmap(inspection: Inspection, console: Console) -> Text:
    """The inspected text, colored by the probability of each token; the first token is not scored and has no color."""
    scored = ((token.text, level_of(token.probability, LEVELS)) for token in inspection.tokens)
    return _colored_text([(inspection.first.text, None), *scored], console)


def legend(console: Console) -> Text:
    """The legend of `heatmap`."""
    return _legend("probability ", LEVELS, console)


def change_map(comparison: Comparison, console: Console) -> Text:
    """The compared text, colored where the predictions of B differ from those of A."""
    compared = ((part.text, level_of(part.nats.difference, CHANGES)) for part in comparison.parts)
    return _colored_text([(comparison.before, None), *compared], console)


def change_legend(console: Console) -> Text:
    """The legend of `change_map`."""
    return _legend("B is ", reversed(CHANGES), console)


def level_of(value: float, levels: Iterable[Level]) -> Level | None:
    """The first of the levels, which descend, that a value reaches; None if it is not a number."""
    return next((level for level in levels if value >= level.lowest), None)


def _legend(title: str, levels: Iterable[Level], console: Console) -> Text:
    from rich.text import Text

    text = Text(title)
    for level in levels:
        text.append(f" {level.label} ", style=_style(level, console))
    return text


def _colored_text(parts: Iterable[tuple[str, Level | None]], console: Console) -> Text:
    """Strings with their levels; line ends, tabs and other control characters are made visible."""
    from rich.text import Text

    text = Text()
    for part, level in parts:
        text.append(visible(part.translate(_VISIBLE_WHITESPACE)), style=_style(level, console) if level else "")
    return text


def _style(level: Level, console: Console) -> str:
    return level.style if console.color_system in _MANY_COLORS else level.basic
