"""Any reference to a model -> the model and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.errors import CheckpointError, TokenizerError
from tokenloom.model import Model
from tokenloom.weights.book_names import state_from_book
from tokenloom.weights.checkpoint import (
    CHECKPOINTS,
    MANIFEST,
    OPTIMIZER,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
)
from tokenloom.weights.download import fetch, is_name
from tokenloom.weights.folder import read_folder
from tokenloom.weights.gguf import GGUF, read_gguf
from tokenloom.weights.lazy_tensors import LazyModel, Transposed
from tokenloom.weights.openai import is_openai_folder, openai_tokenizer, read_openai
from tokenloom.weights.torch_files import TORCH_SUFFIXES, read_torch_file, read_torch_optimizer

GPT2_VOCABULARY = 50257
_KNOWN = "a run, a checkpoint, a folder of GPT-2 from Hugging Face or OpenAI, a .gguf, a .pth, or gpt2"


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on the CPU, its tokenizer, where they came from, and what should be told about it."""

    model: Model
    tokenizer: Tokenizer
    path: Path
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResolvedModel:
    """What a reference names, its weights not yet read."""

    stored: LazyModel
    tokenizer: Tokenizer
    path: Path
    notices: list[str]


def load(reference: str | Path, *, trust: bool = False, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """The model and tokenizer that `reference` names.

    A run folder means its newest valid checkpoint; `RUN@best` the one with the best validation loss; `RUN@step-1000`
    that step. Taken as they stand are a checkpoint, a folder of GPT-2 from Hugging Face or OpenAI, a .gguf and a .pth;
    fetched once are gpt2, gpt2-medium, gpt2-large, gpt2-xl, and openai:124M, :355M, :774M, :1558M. Without `trust`,
    nothing in a file can run. Loading needs little more memory than the weights in `dtype`. Raises `CheckpointError`
    and `WeightsError`.
    """
    found = resolve_model(reference, trust=trust)
    return LoadedModel(found.stored.read(dtype), found.tokenizer, found.path, found.notices)


def resolve_model(reference: str | Path, *, trust: bool = False) -> ResolvedModel:
    """What `load` would read: configuration, tensors by name and shape, tokenizer."""
    if is_name(reference):
        reference = fetch(str(reference))
    suffix = Path(reference).suffix.lower()
    if suffix == GGUF:
        found = ResolvedModel(*read_gguf(Path(reference)), Path(reference), [])
    elif suffix in TORCH_SUFFIXES:
        found = _resolve_torch_file(Path(reference), trust)
    else:
        path, notices = resolve_checkpoint(reference)
        if is_openai_folder(path):
            found = ResolvedModel(read_openai(path), openai_tokenizer(path), path, notices)
        else:
            found = ResolvedModel(read_folder(path), load_tokenizer(path), path, notices)
    known, wanted = found.stored.config.vocabulary, found.tokenizer.vocab_size
    if wanted > known:
        raise CheckpointError(
            f"{found.path}: the tokenizer knows {wanted:,} tokens, the model {known:,}. They do not belong together."
        )
    return found


def load_optimizer(reference: str | Path) -> dict[str, Tensor]:
    """What the optimizer beside a model remembers, as `Optimizer.state_tensors` names it.

    Checkpoints of a run have it, but not its @best, and the book's .pth with an optimizer_state_dict (section 5.4).
    Raises `CheckpointError` where there is none.
    """
    path = Path(reference)
    if path.suffix.lower() not in TORCH_SUFFIXES:
        path, _ = resolve_checkpoint(reference)
        if (path / OPTIMIZER).is_file():
            return load_file(path / OPTIMIZER)
    elif (saved := read_torch_optimizer(path)) is not None:
        return _adamw_of_book(*saved)
    raise CheckpointError(f"{path} has no optimizer. Leave --init-optimizer out, or name a step of a run.")


def _adamw_of_book(names: Sequence[str], memory: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key in ("exp_avg", "exp_avg_sq"):
        ours = state_from_book({name: memory[i][key] for i, name in enumerate(names)})
        for name, tensor in ours.items():
            assert not isinstance(tensor, Transposed)  # the book's matrices lie as ours
            tensors[f"adamw/{key}/{name}"] = tensor[:]
    # A count of its own for each: an optimizer counts in place.
    counts = {name.replace("/exp_avg/", "/step/"): float(memory[0]["step"]) for name in tensors if "/exp_avg/" in name}
    return tensors | {name: torch.tensor(steps) for name, steps in counts.items()}


def resolve_checkpoint(reference: str | Path) -> tuple[Path, list[str]]:
    """The folder of weights that `reference` names, verified if sealed, and a line for each damaged one passed over."""
    text = str(reference)
    folder, _, place = text.rpartition("@") if re.search(r"@(best|step-\d+)$", text) else (text, "", "")
    path = Path(folder)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Name {_KNOWN}.")
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder, nor weights by its name. Name {_KNOWN}.")
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


def _resolve_torch_file(path: Path, trust: bool) -> ResolvedModel:
    stored, notices = read_torch_file(path, trust=trust)
    try:
        return ResolvedModel(stored, load_tokenizer(path.parent), path, notices)
    except TokenizerError:
        if (path.parent / "tokenizer.json").exists() or stored.config.vocabulary < GPT2_VOCABULARY:
            raise
    # A .pth holds no tokenizer; the book's models, and all of GPT-2's vocabulary, have GPT-2's.
    return ResolvedModel(
        stored, load_tokenizer("gpt2"), path, [*notices, f"{path.name} has no tokenizer; taken as gpt2's"]
    )


def _step_folder(checkpoints: Path, step: int) -> Path:
    for kind in ("step", "best"):
        path = checkpoints / f"{kind}-{step:08d}"
        if path.is_dir():
            return path
    raise CheckpointError(f"{checkpoints.parent} has no checkpoint of step {step}. {_have(checkpoints)}")


def _have(checkpoints: Path) -> str:
    names = [f"@step-{int(path.name.partition('-')[2])}" for path in list_checkpoints(checkpoints)]
    return f"It has: {', '.join(names)}." if names else "Train it first."
