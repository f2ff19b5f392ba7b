"""A model named on the command line, and what should be said about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenloom.weights.load import LoadedModel


def load_model(reference: str, *, trust: bool = False) -> LoadedModel:
    """The model and tokenizer; what had to be passed over or assumed is said on stderr."""
    from tokenloom.weights.load import load

    fetch_if_named(reference)
    loaded = load(reference, trust=trust)
    for notice in loaded.notices:
        print(f"tokenloom: {notice}", file=sys.stderr)
    return loaded


def fetch_if_named(reference: str) -> None:
    """Fetch a model that is known by name, such as gpt2, with a bar that shows how far it is."""
    from tokenloom.reporting.progress import byte_progress
    from tokenloom.weights.download import download_model, is_model_name

    if is_model_name(reference):
        with byte_progress() as progress:
            download_model(reference, progress=progress)
