"""Loading by reference: a run, a checkpoint, a file, a folder or a model name -> a model and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.data.tokenizers.huggingface_files import has_tokenizer_files
from tokenloom.errors import CheckpointError, TokenizerError
from tokenloom.model import GPT
from tokenloom.weights.book_names import state_from_book
from tokenloom.weights.checkpoint import Checkpoint
from tokenloom.weights.folder import read_folder
from tokenloom.weights.gguf import read_gguf
from tokenloom.weights.lazy_tensors import LazyModel, Transposed
from tokenloom.weights.openai import is_openai_folder, openai_tokenizer, read_openai
from tokenloom.weights.reference import SUPPORTED, file_format, find_weights
from tokenloom.weights.torch_files import read_torch_model, read_torch_optimizer

GPT2_VOCABULARY = 50257
_MOST_PADDING = 1023  # unused rows that round a vocabulary up, in nanoGPT for example to 50,304


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

    A run folder stands for its newest valid checkpoint, `RUN@best` for the one with the best validation loss,
    `RUN@first` for the first one that is kept, and `RUN@step-1000` for that step. Other references are the path of a
    checkpoint, of a GPT-2 folder from Hugging Face or OpenAI, of a .gguf or a .pth, and the names gpt2, gpt2-medium,
    gpt2-large, gpt2-xl, and openai:124M, :355M, :774M, :1558M, which are downloaded once. `trust` permits pickles that
    can execute code. Loading needs little more memory than the weights in `dtype`. Raises `CheckpointError` and
    `WeightsError`.
    """
    resolved = resolve_model(reference, trust=trust)
    return LoadedModel(resolved.stored.read(dtype), resolved.tokenizer, resolved.path, resolved.notices)


def resolve_model(reference: str | Path, *, trust: bool = False) -> ResolvedModel:
    """The model that `load` loads, with the names and shapes of its tensors but not their values."""
    path, notices = find_weights(reference)
    read = next((reader for is_format, reader in _READERS if is_format(path)), None)
    if read is None:
        raise CheckpointError(f"{path} is neither a folder nor a file in a supported format. Name {SUPPORTED}.")
    resolved = read(path, trust)
    tokens, vocabulary = resolved.tokenizer.vocab_size, resolved.stored.config.vocabulary
    if tokens > vocabulary:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokens:,} tokens, but the model's vocabulary is {vocabulary:,}. "
            "They do not belong together."
        )
    notices += [*resolved.notices, *resolved.tokenizer.notices]
    return ResolvedModel(resolved.stored, resolved.tokenizer, path, notices)


def load_optimizer(reference: str | Path) -> dict[str, Tensor]:
    """The optimizer state that is saved with a model, as `Optimizer.state_tensors` names it.

    The step checkpoints of a run have it, its @best and @first do not; so do .pth files of the book with an
    optimizer_state_dict (section 5.4). Raises `CheckpointError` if there is none.
    """
    path, _ = find_weights(reference)
    if tensors := Checkpoint(path).optimizer_tensors():
        return tensors
    if file_format(path) == "torch" and (saved := read_torch_optimizer(path)) is not None:
        return _adamw_state_from_book(*saved)
    raise CheckpointError(f"{path} has no optimizer state. Leave --init-optimizer out, or name a step of a run.")


def _read_gguf(path: Path, trust: bool) -> ResolvedModel:
    return ResolvedModel(*read_gguf(path), path)


def _read_torch_file(path: Path, trust: bool) -> ResolvedModel:
    stored, notices = read_torch_model(path, trust=trust)
    tokenizer, assumed = _tokenizer_of(path.parent, stored, path)
    return ResolvedModel(stored, tokenizer, path, [*notices, *assumed])


def _refuse_safetensors_file(path: Path, trust: bool) -> ResolvedModel:
    raise CheckpointError(
        f"{path} contains only tensors; the configuration of the model is beside it. Name its folder: {path.parent}"
    )


def _read_openai_folder(path: Path, trust: bool) -> ResolvedModel:
    return ResolvedModel(read_openai(path), openai_tokenizer(path), path)


def _read_model_folder(path: Path, trust: bool) -> ResolvedModel:
    stored = read_folder(path)
    tokenizer, notices = _tokenizer_of(path, stored, path)
    return ResolvedModel(stored, tokenizer, path, notices)


def _tokenizer_of(folder: Path, stored: LazyModel, source: Path) -> tuple[Tokenizer, list[str]]:
    """The tokenizer beside some weights, or GPT-2's with a notice if there is none and the vocabulary has its size."""
    if has_tokenizer_files(folder):
        return load_tokenizer(folder), []
    if not 0 <= stored.config.vocabulary - GPT2_VOCABULARY <= _MOST_PADDING:
        raise TokenizerError(
            f"folder {folder} has no tokenizer.json, and the {stored.config.vocabulary:,} tokens of {source.name} are "
            "not those of gpt2. Copy the tokenizer.json of the model into that folder."
        )
    return load_tokenizer("gpt2"), [f"{source.name} has no tokenizer; assuming gpt2"]


_Reader = Callable[[Path, bool], ResolvedModel]
# To add a format of weights: a reader, and a row in this table. The first format whose test is true is used.
_READERS: Sequence[tuple[Callable[[Path], bool], _Reader]] = (
    (lambda path: file_format(path) == "gguf", _read_gguf),
    (lambda path: file_format(path) == "torch", _read_torch_file),
    (lambda path: file_format(path) == "safetensors", _refuse_safetensors_file),
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
