"""A text coloured by how likely each token was to the model that read it, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

# From what the model expected to what took it by surprise: least probability, background, with black letters on all.
LEVELS = (
    (0.5, "#b7e3b0"),
    (0.1, "#e3efa6"),
    (0.01, "#fde38a"),
    (0.001, "#fdb56b"),
    (0.0, "#f2827b"),
)
_SHOWN = str.maketrans({"\n": "↵\n", "\t": "→\t", "\r": "␍"})


def heatmap(first: str, tokens: Iterable[Mapping[str, Any]]) -> Text:
    """The text of `inspect`'s tokens, line ends shown; `first`, which nothing predicts, has no colour."""
    from rich.text import Text

    drawn = Text(first.translate(_SHOWN))
    for token in tokens:
        drawn.append(token["text"].translate(_SHOWN), style=f"black on {colour(token['probability'])}")
    return drawn


def legend() -> Text:
    """What the colours mean."""
    from rich.text import Text

    drawn = Text("probability ")
    for least, background in LEVELS:
        label = f"≥ {least:g}" if least else f"< {LEVELS[-2][0]:g}"
        drawn.append(f" {label} ", style=f"black on {background}")
    return drawn


def colour(probability: float) -> str:
    return next(background for least, background in LEVELS if probability >= least)
