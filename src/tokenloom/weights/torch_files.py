"""PyTorch's own files, .pth, .pt and .bin: pickles, of which only the tensors are taken.

Understood are the book's `torch.save` of a state dict, alone or with an optimizer's (section 5.4), what `tokenloom
export --format pth` writes, nanoGPT's checkpoints, and Hugging Face's old pytorch_model.bin.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenloom.config import Config, ModelConfig
from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.weights.book_names import BOOK_SETTINGS, is_book_state, state_from_book
from tokenloom.weights.lazy_tensors import LazyModel, LazyOrTransposed, LazyTensor, files_of_index

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")

# Prefixes that wrappers leave on names: torch.compile's, DistributedDataParallel's, Hugging Face's.
_WRAPPERS = re.compile(r"^(?:_orig_mod\.|module\.|transformer\.)+")
_HEAD_SIZE = 64  # of every GPT-2; weights alone do not tell how many heads share a matrix


def read_torch_file(path: Path, *, trust: bool = False) -> tuple[LazyModel, list[str]]:
    """The model in a .pth, and what had to be assumed about it.

    Only tensors and plain values are unpickled; `trust` lets the file run code of its own. Settings that weights do
    not tell are taken from the file, or from a config.json beside it. Raises `WeightsError`, `CheckpointError`.
    """
    content = unpickle(path, trust=trust)
    state, said = _state_and_settings(content, path)
    settings = said | _settings_beside(path)
    state = {_WRAPPERS.sub("", name): tensor for name, tensor in state.items()}
    if is_book_state(state):
        tensors, seen = state_from_book(state), {"init": "book"}
    else:
        tensors, seen = {n: t for n, t in state.items() if not n.endswith(".attn.bias")}, {}
    config, notices = _config(tensors, seen | settings, path)
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    return LazyModel(config, tensors, str(path)), notices


def read_torch_optimizer(
    path: Path, *, trust: bool = False
) -> tuple[list[str], Mapping[int, Mapping[str, Tensor]]] | None:
    """The book's saved AdamW: its parameters' names in order, and what it remembers of each; None if it has none."""
    content = unpickle(path, trust=trust)
    if not isinstance(content, Mapping) or "optimizer_state_dict" not in content:
        return None
    state, _ = _state_and_settings(content, path)
    names = [_WRAPPERS.sub("", name) for name in state if not name.endswith("mask")]
    return names, content["optimizer_state_dict"]["state"]


def torch_file_tensors(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of pytorch_model.bin, or of the several files that its index names."""
    files = files_of_index(folder / BIN_INDEX) if (folder / BIN_INDEX).is_file() else [folder / BIN]
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        tensors |= _tensors(unpickle(file), file)
    return tensors


def unpickle(path: Path, *, trust: bool = False) -> Any:
    """What `torch.save` put there, on the CPU; without `trust`, nothing in the file can run.

    Raises `WeightsError` for a file that holds more than tensors and plain values, or is damaged.
    """
    try:
        # A zip, as torch has written since 1.6, can be mapped: tensors are read when they are copied.
        return torch.load(path, map_location="cpu", weights_only=not trust, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        what = f"wants to load {named[1]}" if named else "is damaged or holds more than tensors"
        raise WeightsError(
            f"{path} {what}, which could run code. Ask for a safetensors file, or pass --trust if you know who made it."
        ) from None
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. Check the path.") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} cannot be read as a file of PyTorch: {reason}. Use another copy.") from None


def _state_and_settings(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict, and settings that the file says itself, under our names."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict. Save model.state_dict().")
    for key in ("model_state_dict", "model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            said = content.get("tokenloom") or content.get("model_args") or {}
            return _tensors(content[key], path), _our_names(said)
    return _tensors(content, path), {}


def _tensors(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict. Save model.state_dict().")
    strange = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strange or not content:
        raise WeightsError(
            f"{path} is not a state dict: {f'{strange[0]!r} is no tensor' if strange else 'it is empty'}. "
            "Save model.state_dict(), alone or as model_state_dict."
        )
    return dict(content)


def _settings_beside(path: Path) -> dict[str, Any]:
    beside = path.with_name("config.json")
    if not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        return _our_names(content.get("tokenloom", content))
    except (ValueError, AttributeError):
        raise WeightsError(f"{beside} is not a JSON object. Mend it, or move it away.") from None


def _our_names(settings: Any) -> dict[str, Any]:
    """Settings under our names, from ours, nanoGPT's, Hugging Face's or the book's."""
    if not isinstance(settings, Mapping):
        return {}
    renamed = {BOOK_SETTINGS.get(name, name): value for name, value in settings.items()}
    return {name: value for name, value in renamed.items() if name in ModelConfig.model_fields}


def _config(
    tensors: Mapping[str, LazyOrTransposed], settings: Mapping[str, Any], path: Path
) -> tuple[ModelConfig, list[str]]:
    """What the shapes tell, over what was said; for the number of heads, which they do not tell, GPT-2's head size."""
    if settings.get("family") == "modern":
        return Config.of({"model": settings}).model, []
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors:
            raise WeightsError(f"{path} holds no GPT-2: it has no {name}. Name a state dict of the book's or our GPT.")
    vocab_size, n_embd = tensors["wte.weight"].shape
    layers = {int(match[1]) for name in tensors if (match := re.match(r"h\.(\d+)\.", name))}
    told = {
        "family": "gpt2",
        "vocab_size": vocab_size,
        "n_embd": n_embd,
        "block_size": tensors["wpe.weight"].shape[0],
        "n_layer": max(layers, default=-1) + 1,
        "qkv_bias": "h.0.attn.c_attn.bias" in tensors,
        "tie_embeddings": _is_tied(tensors),
    }
    notices = []
    if "n_head" not in settings:
        if n_embd % _HEAD_SIZE:
            raise WeightsError(
                f"{path} does not say how many heads its attention has. "
                f'Write {{"n_head": …}} into {path.with_name("config.json")}.'
            )
        notices.append(f"{path.name} does not say its number of heads; taken as {n_embd // _HEAD_SIZE}, 64 wide each")
        told["n_head"] = n_embd // _HEAD_SIZE
    return Config.of({"model": {**settings, **told}}).model, notices


def _is_tied(tensors: Mapping[str, LazyOrTransposed]) -> bool:
    """Whether the head is the embedding, stored once or twice."""
    head, embedding = tensors.get("lm_head.weight"), tensors["wte.weight"]
    if head is None:
        return True
    return isinstance(head, Tensor) and isinstance(embedding, Tensor) and torch.equal(head, embedding)
