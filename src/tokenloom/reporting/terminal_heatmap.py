"""Text colored by how well a model predicts it, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenloom.reporting.formatting import visible

if TYPE_CHECKING:
    from rich.text import Text

    from tokenloom.evaluation.comparison import Comparison
    from tokenloom.evaluation.inspection import Inspection

# Lowest probability of a level, and the background of its black letters. Colors are named, not RGB: 16-color terminals
# have them, and terminal themes keep them readable.
LEVELS = (
    (0.5, "bright_green"),
    (0.1, "bright_cyan"),
    (0.01, "bright_yellow"),
    (0.001, "bright_magenta"),
    (0.0, "bright_red"),
)
# Lowest difference of a level in nats, B minus A, with its background and label.
CHANGES = (
    (1.0, "bright_red", "≥ 1 nat worse"),
    (0.1, "bright_yellow", "≥ 0.1 worse"),
    (-0.1, None, "similar"),
    (-1.0, "bright_cyan", "≥ 0.1 better"),
    (-float("inf"), "bright_green", "≥ 1 nat better"),
)
_VISIBLE_WHITESPACE = str.maketrans({"\n": "↵\n", "\t": "→\t", "\r": "␍"})


def heatmap(inspection: Inspection) -> Text:
    """The inspected text, colored by the probability of each token; the first token is not scored and has no color."""
    scored = ((token.text, probability_color(token.probability)) for token in inspection.tokens)
    return _colored_text([(inspection.first.text, None), *scored])


def legend() -> Text:
    """The legend of `heatmap`."""
    from rich.text import Text

    text = Text("probability ")
    for lowest, background in LEVELS:
        label = f"≥ {lowest:g}" if lowest else f"< {LEVELS[-2][0]:g}"
        text.append(f" {label} ", style=f"black on {background}")
    return text


def change_map(comparison: Comparison) -> Text:
    """The compared text, colored where the predictions of B differ from those of A."""
    compared = ((part.text, change_color(part.nats.difference)) for part in comparison.parts)
    return _colored_text([(comparison.before, None), *compared])


def change_legend() -> Text:
    """The legend of `change_map`."""
    from rich.text import Text

    text = Text("B is ")
    for _, background, label in reversed(CHANGES):
        text.append(f" {label} ", style=f"black on {background}" if background else "")
    return text


def probability_color(probability: float) -> str:
    """The background for a token of this probability."""
    return next(background for lowest, background in LEVELS if probability >= lowest)


def change_color(difference: float) -> str | None:
    """The background for a difference in nats; None for a small one."""
    return next(background for lowest, background, _ in CHANGES if difference >= lowest)


def _colored_text(parts: Iterable[tuple[str, str | None]]) -> Text:
    """Strings with their backgrounds; line ends, tabs and other control characters are made visible."""
    from rich.text import Text

    text = Text()
    for part, background in parts:
        text.append(visible(part.translate(_VISIBLE_WHITESPACE)), style=f"black on {background}" if background else "")
    return text
