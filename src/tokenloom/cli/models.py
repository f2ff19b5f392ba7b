"""A model named on the command line, and what should be said about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenloom.weights.load import Loaded


def load_model(reference: str) -> Loaded:
    """The model and tokenizer; a damaged checkpoint that had to be passed over is named on stderr."""
    from tokenloom.weights.load import load

    loaded = load(reference)
    for notice in loaded.notices:
        print(f"tokenloom: {notice}", file=sys.stderr)
    return loaded
