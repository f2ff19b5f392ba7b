"""Loading of the model that a command names, with progress and notices on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenloom.cli.output import print_notice

if TYPE_CHECKING:
    from tokenloom.weights.load import LoadedModel


def load_model(reference: str, *, trust: bool = False) -> LoadedModel:
    """Load a model and its tokenizer; prints notices, such as skipped corrupt checkpoints, to stderr."""
    from tokenloom.weights.load import load

    fetch_if_named(reference)
    loaded = load(reference, trust=trust)
    for notice in loaded.notices:
        print_notice(notice)
    return loaded


def fetch_if_named(reference: str) -> None:
    """Download a model such as gpt2, with a progress bar, unless it is cached or `reference` is a path."""
    from tokenloom.reporting.progress import byte_progress
    from tokenloom.weights.download import download_model, is_model_name

    if is_model_name(reference):
        with byte_progress() as progress:
            download_model(reference, progress=progress)
