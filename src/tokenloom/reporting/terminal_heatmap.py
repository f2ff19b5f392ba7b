"""A text coloured by how likely each token was to the model that read it, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

# From what the model expected to what took it by surprise: least probability, and the background of black letters.
# Named colours, which a terminal of 16 colours has too, and which its theme keeps readable.
LEVELS = (
    (0.5, "bright_green"),
    (0.1, "bright_cyan"),
    (0.01, "bright_yellow"),
    (0.001, "bright_magenta"),
    (0.0, "bright_red"),
)
# From what B expected much better than A to what it expected much worse: least difference in nats, and background.
CHANGES = (
    (1.0, "bright_red", "≥ 1 nat worse"),
    (0.1, "bright_yellow", "≥ 0.1 worse"),
    (-0.1, None, "alike"),
    (-1.0, "bright_cyan", "≥ 0.1 better"),
    (-float("inf"), "bright_green", "≥ 1 nat better"),
)
_SHOWN = str.maketrans({"\n": "↵\n", "\t": "→\t", "\r": "␍"})


def heatmap(first: str, tokens: Iterable[Mapping[str, Any]]) -> Text:
    """The text of `inspect`'s tokens, line ends shown; `first`, which nothing predicts, has no colour."""
    from rich.text import Text

    drawn = Text(first.translate(_SHOWN))
    for token in tokens:
        drawn.append(token["text"].translate(_SHOWN), style=f"black on {colour(token['probability'])}")
    return drawn


def change_map(before: str, parts: Iterable[Mapping[str, Any]]) -> Text:
    """The text of `compare`'s parts, line ends shown, coloured where B differs from A."""
    from rich.text import Text

    drawn = Text(before.translate(_SHOWN))
    for part in parts:
        background = colour_of_change(part["difference"])
        drawn.append(part["text"].translate(_SHOWN), style=f"black on {background}" if background else "")
    return drawn


def legend() -> Text:
    """What the colours of `heatmap` mean."""
    from rich.text import Text

    drawn = Text("probability ")
    for least, background in LEVELS:
        label = f"≥ {least:g}" if least else f"< {LEVELS[-2][0]:g}"
        drawn.append(f" {label} ", style=f"black on {background}")
    return drawn


def colour(probability: float) -> str:
    return next(background for least, background in LEVELS if probability >= least)


def change_legend() -> Text:
    """What the colours of `change_map` mean."""
    from rich.text import Text

    drawn = Text("B is ")
    for _, background, label in reversed(CHANGES):
        drawn.append(f" {label} ", style=f"black on {background}" if background else "")
    return drawn


def colour_of_change(difference: float) -> str | None:
    return next(background for least, background, _ in CHANGES if difference >= least)
