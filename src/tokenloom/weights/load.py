"""Any reference to a model -> the model and its tokenizer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.errors import CheckpointError
from tokenloom.model import Model
from tokenloom.weights.checkpoint import (
    CHECKPOINTS,
    MANIFEST,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    read_model,
)


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on the CPU, its tokenizer, where they came from, and what should be told about it."""

    model: Model
    tokenizer: Tokenizer
    path: Path
    notices: list[str] = field(default_factory=list)


def load(reference: str | Path) -> Loaded:
    """The model and tokenizer that `reference` names.

    A run folder means its newest valid checkpoint; `RUN@best` the one with the best validation loss; `RUN@step-1000`
    that step. A checkpoint or a Hugging Face GPT-2 folder is taken as it stands. Raises `CheckpointError`.
    """
    path, notices = find_checkpoint(reference)
    model, tokenizer = read_model(path), load_tokenizer(path)
    if tokenizer.vocab_size > model.config.vocabulary:
        raise CheckpointError(
            f"{path}: the tokenizer knows {tokenizer.vocab_size:,} tokens, the model {model.config.vocabulary:,}. "
            "They do not belong together."
        )
    return Loaded(model, tokenizer, path, notices)


def find_checkpoint(reference: str | Path) -> tuple[Path, list[str]]:
    """The folder of weights that `reference` names, verified if sealed, and a line for each damaged one passed over."""
    text = str(reference)
    folder, _, place = text.rpartition("@") if re.search(r"@(best|step-\d+)$", text) else (text, "", "")
    path = Path(folder)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Name a run folder, a checkpoint or a Hugging Face folder.")
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder. Name a run folder, a checkpoint or a Hugging Face folder.")
    checkpoints = path / CHECKPOINTS
    if not checkpoints.is_dir():
        if place:
            raise CheckpointError(f"{path} is not a run folder, so it has no @{place}. Leave @{place} out.")
        return (open_checkpoint(path).path if (path / MANIFEST).exists() else path), []
    if place.startswith("step-"):
        return open_checkpoint(_step_folder(checkpoints, int(place.removeprefix("step-")))).path, []
    newest, notices = newest_checkpoint(checkpoints, place or "step")
    if newest is None:
        raise CheckpointError(
            f"{path} has no valid checkpoint{f' @{place}' if place else ''} yet. {_have(checkpoints)}"
        )
    return newest.path, notices


def _step_folder(checkpoints: Path, step: int) -> Path:
    for kind in ("step", "best"):
        path = checkpoints / f"{kind}-{step:08d}"
        if path.is_dir():
            return path
    raise CheckpointError(f"{checkpoints.parent} has no checkpoint of step {step}. {_have(checkpoints)}")


def _have(checkpoints: Path) -> str:
    names = [f"@step-{int(path.name.partition('-')[2])}" for path in list_checkpoints(checkpoints)]
    return f"It has: {', '.join(names)}." if names else "Train it first."
