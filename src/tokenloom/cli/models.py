"""A model named on the command line, and what should be said about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenloom.weights.load import Loaded


def load_model(reference: str, *, trust: bool = False) -> Loaded:
    """The model and tokenizer; what had to be passed over or assumed is said on stderr."""
    from tokenloom.weights.load import load

    loaded = load(reference, trust=trust)
    for notice in loaded.notices:
        print(f"tokenloom: {notice}", file=sys.stderr)
    return loaded
