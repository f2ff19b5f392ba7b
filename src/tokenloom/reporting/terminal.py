"""The terminal: a console on stderr, and what a console can display."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def stderr_console() -> Console:
    """A console on stderr; stdout is reserved for results."""
    from rich.console import Console

    # Only a real terminal gets control characters; FORCE_COLOR in a CI log does not make it one.
    return Console(stderr=True, force_terminal=sys.stderr.isatty())


def can_draw(console: Console) -> bool:
    """Whether the console can redraw what it has shown."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


def encodable(text: str, encoding: str) -> str:
    """Text with each character that the encoding lacks replaced by a question mark."""
    return text.encode(encoding, "replace").decode(encoding)
