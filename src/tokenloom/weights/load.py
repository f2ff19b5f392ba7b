"""Loading by reference: a run, a checkpoint, a file, a folder or a model name -> a model and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.errors import CheckpointError, TokenizerError
from tokenloom.model import GPT
from tokenloom.run_folder import RunFolder
from tokenloom.weights.book_names import state_from_book
from tokenloom.weights.checkpoint import MANIFEST, OPTIMIZER, list_checkpoints, newest_checkpoint, open_checkpoint
from tokenloom.weights.download import download_model, is_model_name
from tokenloom.weights.folder import read_folder
from tokenloom.weights.gguf import GGUF, read_gguf
from tokenloom.weights.lazy_tensors import LazyModel, Transposed
from tokenloom.weights.openai import is_openai_folder, openai_tokenizer, read_openai
from tokenloom.weights.safetensors_files import load_tensors
from tokenloom.weights.torch_files import TORCH_SUFFIXES, read_torch_model, read_torch_optimizer

GPT2_VOCABULARY = 50257
_SUPPORTED = "a run, a checkpoint, a folder of GPT-2 from Hugging Face or OpenAI, a .gguf, a .pth, or gpt2"


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on the CPU, with its tokenizer."""

    model: GPT
    tokenizer: Tokenizer
    path: Path
    """The file or folder that it was loaded from."""
    notices: Sequence[str] = ()
    """What the user should know: assumptions, and corrupt checkpoints that were skipped."""


@dataclass(frozen=True)
class ResolvedModel:
    """The model that a reference names, with its weights not loaded yet."""

    stored: LazyModel
    tokenizer: Tokenizer
    path: Path
    notices: Sequence[str] = ()


def load(reference: str | Path, *, trust: bool = False, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """The model and tokenizer that `reference` names.

    A run folder stands for its newest valid checkpoint, `RUN@best` for the one with the best validation loss, and
    `RUN@step-1000` for that step. Other references are the path of a checkpoint, of a GPT-2 folder from Hugging Face
    or OpenAI, of a .gguf or a .pth, and the names gpt2, gpt2-medium, gpt2-large, gpt2-xl, and openai:124M, :355M,
    :774M, :1558M, which are downloaded once. `trust` permits pickles that can execute code. Loading needs little more
    memory than the weights in `dtype`. Raises `CheckpointError` and `WeightsError`.
    """
    resolved = resolve_model(reference, trust=trust)
    return LoadedModel(resolved.stored.read(dtype), resolved.tokenizer, resolved.path, resolved.notices)


def resolve_model(reference: str | Path, *, trust: bool = False) -> ResolvedModel:
    """The model that `load` loads, with the names and shapes of its tensors but not their values."""
    if is_model_name(reference):
        reference = download_model(str(reference))
    path = Path(reference)
    notices: list[str] = []
    read = _FILE_READERS.get(path.suffix.lower())
    if read is None:
        path, notices = resolve_checkpoint(reference)
        read = next(reader for is_format, reader in _FOLDER_READERS if is_format(path))
    resolved = read(path, trust)
    tokens, vocabulary = resolved.tokenizer.vocab_size, resolved.stored.config.vocabulary
    if tokens > vocabulary:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokens:,} tokens, but the model's vocabulary is {vocabulary:,}. "
            "They do not belong together."
        )
    return ResolvedModel(resolved.stored, resolved.tokenizer, path, [*notices, *resolved.notices])


def resolve_checkpoint(reference: str | Path) -> tuple[Path, list[str]]:
    """The folder of weights that `reference` names, and a notice for each corrupt checkpoint that was skipped.

    A checkpoint that has a manifest is verified. Raises `CheckpointError`.
    """
    match = re.fullmatch(r"(.*)@(best|step-\d+)", str(reference), flags=re.DOTALL)
    path, selector = (Path(match[1]), match[2]) if match else (Path(reference), "")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Name {_SUPPORTED}.")
    if not path.is_dir():
        raise CheckpointError(f"{path} is neither a folder nor a file in a supported format. Name {_SUPPORTED}.")
    checkpoints = RunFolder(path).checkpoints
    if not checkpoints.is_dir():
        if selector:
            raise CheckpointError(f"{path} is not a run folder, so it has no @{selector}. Leave @{selector} out.")
        return (open_checkpoint(path).path if (path / MANIFEST).exists() else path), []
    if selector.startswith("step-"):
        return open_checkpoint(_checkpoint_of_step(checkpoints, int(selector.removeprefix("step-")))).path, []
    newest, notices = newest_checkpoint(checkpoints, selector or "step")
    if newest is None:
        suffix = f" @{selector}" if selector else ""
        raise CheckpointError(f"{path} has no valid checkpoint{suffix}. {_available(checkpoints)}")
    return newest.path, notices


def load_optimizer(reference: str | Path) -> dict[str, Tensor]:
    """The optimizer state that is saved with a model, as `Optimizer.state_tensors` names it.

    The step checkpoints of a run have it, its @best does not; so do .pth files of the book with an
    optimizer_state_dict (section 5.4). Raises `CheckpointError` if there is none.
    """
    path = Path(reference)
    if path.suffix.lower() not in TORCH_SUFFIXES:
        path, _ = resolve_checkpoint(reference)
        if (path / OPTIMIZER).is_file():
            return load_tensors(path / OPTIMIZER)
    elif (saved := read_torch_optimizer(path)) is not None:
        return _adamw_state_from_book(*saved)
    raise CheckpointError(f"{path} has no optimizer state. Leave --init-optimizer out, or name a step of a run.")


def _read_gguf(path: Path, trust: bool) -> ResolvedModel:
    return ResolvedModel(*read_gguf(path), path)


def _read_torch_file(path: Path, trust: bool) -> ResolvedModel:
    stored, notices = read_torch_model(path, trust=trust)
    try:
        return ResolvedModel(stored, load_tokenizer(path.parent), path, notices)
    except TokenizerError:
        if (path.parent / "tokenizer.json").exists() or stored.config.vocabulary < GPT2_VOCABULARY:
            raise
    notice = f"{path.name} has no tokenizer; assuming gpt2"
    return ResolvedModel(stored, load_tokenizer("gpt2"), path, [*notices, notice])


def _read_openai_folder(path: Path, trust: bool) -> ResolvedModel:
    return ResolvedModel(read_openai(path), openai_tokenizer(path), path)


def _read_model_folder(path: Path, trust: bool) -> ResolvedModel:
    return ResolvedModel(read_folder(path), load_tokenizer(path), path)


_Reader = Callable[[Path, bool], ResolvedModel]
# To add a format of weights: a reader, and a row in one of these tables.
_FILE_READERS: Mapping[str, _Reader] = {GGUF: _read_gguf, **dict.fromkeys(TORCH_SUFFIXES, _read_torch_file)}
# The first format whose test is true of a folder is used.
_FOLDER_READERS: Sequence[tuple[Callable[[Path], bool], _Reader]] = (
    (is_openai_folder, _read_openai_folder),
    (Path.is_dir, _read_model_folder),
)


def _adamw_state_from_book(names: Sequence[str], states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Optimizer tensors from the AdamW states of the book's parameters, which are numbered in the order of `names`."""
    tensors: dict[str, Tensor] = {}
    for key in ("exp_avg", "exp_avg_sq"):
        moments = state_from_book({name: states[i][key] for i, name in enumerate(names)})
        for name, tensor in moments.items():
            assert not isinstance(tensor, Transposed)  # the book's layers are nn.Linear too
            tensors[f"adamw/{key}/{name}"] = tensor[:]
    # A separate tensor for each count: the optimizer increments them in place.
    counts = {name.replace("/exp_avg/", "/step/"): float(states[0]["step"]) for name in tensors if "/exp_avg/" in name}
    return tensors | {name: torch.tensor(steps) for name, steps in counts.items()}


def _checkpoint_of_step(checkpoints: Path, step: int) -> Path:
    for kind in ("step", "best"):
        path = checkpoints / f"{kind}-{step:08d}"
        if path.is_dir():
            return path
    raise CheckpointError(f"{checkpoints.parent} has no checkpoint of step {step}. {_available(checkpoints)}")


def _available(checkpoints: Path) -> str:
    names = [f"@step-{int(path.name.partition('-')[2])}" for path in list_checkpoints(checkpoints)]
    return f"Available: {', '.join(names)}." if names else "Train the model first."
