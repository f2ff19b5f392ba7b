"""PyTorch files (.pth, .pt, .bin, .ckpt): pickles, from which only tensors and plain values are loaded.

Supported: the book's `torch.save` of a state dict, alone or together with an optimizer's (section 5.4), the files of
`tokenloom export --format pth`, nanoGPT's checkpoints, and Hugging Face's older pytorch_model.bin.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from tokenloom.config import Config, ModelConfig
from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.model import build
from tokenloom.storage import utf8_name
from tokenloom.strict_json import load_json
from tokenloom.weights.book_names import BOOK_SETTINGS, is_book_state, state_from_book
from tokenloom.weights.huggingface import GELUS, IGNORED, TRANSPOSED, check_settings, from_huggingface
from tokenloom.weights.lazy_tensors import LazyModel, LazyTensor, StoredTensor, Transposed, Zeros, is_tied
from tokenloom.weights.safetensors_files import files_of_index, merge_shards

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")

# Keys under which training scripts save the state dict.
_STATE_KEYS = ("model_state_dict", "model", "state_dict")
# Prefixes of torch.compile, DistributedDataParallel and Hugging Face.
_PREFIXES = re.compile(r"^(?:_orig_mod\.|module\.|transformer\.)+")
_HEAD_SIZE = 64  # of every published GPT-2; tensor shapes do not determine the number of heads
_SAVE_ADVICE = "Save model.state_dict(), alone or as model_state_dict."


def read_torch_model(path: Path, *, trust: bool = False) -> tuple[LazyModel, list[str]]:
    """The model in a PyTorch file, and a notice for each setting that is assumed.

    Settings that tensor shapes do not determine come from the file, or from a config.json next to it. `trust` permits
    pickles that can execute code. Raises `WeightsError` and `CheckpointError`.
    """
    content = load_torch_file(path, trust=trust)
    state, saved_settings = _state_and_settings(content, path)
    config_file = _read_config_file(path)
    state = {_PREFIXES.sub("", name): tensor for name, tensor in state.items()}
    if _is_conv1d(state) and "model_type" in config_file:
        return LazyModel(*from_huggingface(config_file, state), str(path)), []
    settings = saved_settings | _renamed_settings(config_file.get("tokenloom", config_file))
    if "activation_function" in config_file:
        check_settings(config_file)
        settings = {"gelu": GELUS[config_file["activation_function"]], **settings}
    tensors: dict[str, StoredTensor]
    if is_book_state(state):
        tensors = state_from_book(state)
        settings = {"init": "book", **settings}
    else:
        tensors = {name: tensor for name, tensor in state.items() if not name.endswith(IGNORED)}
        if _is_conv1d(state):
            tensors = {n: Transposed(state[n]) if n.endswith(TRANSPOSED) else tensor for n, tensor in tensors.items()}
        check_settings(config_file)
    is_nanogpt = _is_mapping(content) and "model_args" in content
    if is_nanogpt:
        settings = {"gelu": "exact", **settings}
    config, notices = _config(tensors, settings, path)
    if is_nanogpt:
        notices.append(f"{path.name} is from nanoGPT; assuming the exact GELU of its current version")
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    if config.family == "gpt2":
        tensors = _with_biases(config, tensors)
    return LazyModel(config, tensors, str(path)), notices


def read_torch_optimizer(
    path: Path, *, trust: bool = False
) -> tuple[list[str], Mapping[int, Mapping[str, Tensor]]] | None:
    """The names of the book's parameters in order, and the AdamW state of each by its index; None if there is none."""
    content = load_torch_file(path, trust=trust)
    if not _is_mapping(content) or "optimizer_state_dict" not in content:
        return None
    state, _ = _state_and_settings(content, path)
    names = [_PREFIXES.sub("", name) for name in state if not name.endswith("mask")]
    return names, content["optimizer_state_dict"]["state"]


def lazy_torch_tensors(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of pytorch_model.bin, or of the shards that its index lists."""
    files = [folder / BIN] if (folder / BIN).is_file() else files_of_index(folder / BIN_INDEX)
    return merge_shards((file, _state_dict(load_torch_file(file), file)) for file in files)


def load_torch_file(path: Path, *, trust: bool = False) -> object:
    """The content of a file of `torch.save`, on the CPU; without `trust`, no code in the file is executed.

    Raises `WeightsError` for a file that is corrupt or contains more than tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":  # torch.load would choose another format by this suffix
            return torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=not trust)
        # The zip format, the default since torch 1.6, can be memory-mapped: tensors are read when they are copied.
        with utf8_name(path) as name:
            return torch.load(name, map_location="cpu", weights_only=not trust, mmap=zipfile.is_zipfile(name))
    except pickle.UnpicklingError as error:
        match = re.search(r"(?:GLOBAL|global) (\S+)", str(error))
        problem = f"refers to {match[1]}" if match else "is corrupt or contains more than tensors"
        raise WeightsError(
            f"{path} {problem}, so loading it could execute code. "
            "Use a safetensors file, or pass --trust if you trust its author.",
            topic="pickle",
        ) from None
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist. Check the path.") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} cannot be read as a PyTorch file: {reason}. Use another copy.") from None


def _state_and_settings(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The state dict, and the model settings that are saved with it."""
    if _is_mapping(content):
        for key in _STATE_KEYS:
            if _is_mapping(content.get(key)):
                settings: object = content.get("tokenloom") or content.get("model_args")
                return _state_dict(content[key], path), _renamed_settings(settings)
    return _state_dict(content, path), {}


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if not _is_mapping(content):
        raise WeightsError(f"{path} contains a {type(content).__name__}, not a state dict. {_SAVE_ADVICE}")
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise WeightsError(f"{path} is not a state dict: {name!r} is not a tensor. {_SAVE_ADVICE}")
        state[name] = value
    if not state:
        raise WeightsError(f"{path} is not a state dict: it is empty. {_SAVE_ADVICE}")
    return state


def _is_conv1d(state: Mapping[str, Tensor]) -> bool:
    """Whether matrices are stored as Hugging Face's GPT-2 does, (inputs, outputs), instead of nn.Linear's layout."""
    weight = state.get("h.0.attn.c_attn.weight")
    return weight is not None and weight.ndim == 2 and 3 * weight.shape[0] == weight.shape[1]


def _with_biases(config: ModelConfig, tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Zero biases for a model that has none at all, as nanoGPT's do with `bias=False`."""
    if any(name.endswith(".bias") for name in tensors):
        return tensors
    with torch.device("meta"):
        expected = build(config).state_dict()
    biases = {name: Zeros(tuple(tensor.shape)) for name, tensor in expected.items() if name.endswith(".bias")}
    return {**tensors, **biases}


def _read_config_file(path: Path) -> Mapping[str, Any]:
    """The config.json next to a PyTorch file; empty if there is none."""
    file = path.with_name("config.json")
    if not file.is_file():
        return {}
    try:
        content: object = load_json(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not _is_mapping(content):
        raise WeightsError(f"{file} is not a JSON object. Correct it, or move it away.")
    return content


def _renamed_settings(settings: object) -> dict[str, object]:
    """Settings by the names of `ModelConfig`, from those of Tokenloom, nanoGPT, Hugging Face or the book."""
    if not _is_mapping(settings):
        return {}
    renamed = {BOOK_SETTINGS.get(name, name): value for name, value in settings.items()}
    return {name: value for name, value in renamed.items() if name in ModelConfig.model_fields}


def _config(
    tensors: Mapping[str, StoredTensor], settings: Mapping[str, object], path: Path
) -> tuple[ModelConfig, list[str]]:
    """The configuration from the shapes, which override the settings; assumes GPT-2's head size if none is given."""
    if settings.get("family") == "modern":
        return Config.of({"model": settings}).model, []
    for name in ("wte.weight", "wpe.weight"):
        if name not in tensors:
            raise WeightsError(
                f"{path} contains no GPT-2: it has no {name}. Name a state dict of the book's GPTModel or of Tokenloom."
            )
    vocab_size, n_embd = tensors["wte.weight"].shape
    layers = {int(match[1]) for name in tensors if (match := re.match(r"h\.(\d+)\.", name))}
    from_shapes: dict[str, object] = {
        "family": "gpt2",
        "vocab_size": vocab_size,
        "n_embd": n_embd,
        "block_size": tensors["wpe.weight"].shape[0],
        "n_layer": max(layers, default=-1) + 1,
        "qkv_bias": "h.0.attn.c_attn.bias" in tensors,
        "tie_embeddings": is_tied(tensors),
    }
    notices: list[str] = []
    if "n_head" not in settings:
        if n_embd % _HEAD_SIZE:
            raise WeightsError(
                f"{path} does not specify its number of attention heads. "
                f'Write {{"n_head": …}} into {path.with_name("config.json")}.'
            )
        from_shapes["n_head"] = n_embd // _HEAD_SIZE
        notices.append(f"{path.name} does not specify its number of heads; assuming {n_embd // _HEAD_SIZE} of size 64")
    return Config.of({"model": {**settings, **from_shapes}}).model, notices


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Unlike `isinstance`, narrows an unknown value to a mapping with known type arguments."""
    return isinstance(value, Mapping)
