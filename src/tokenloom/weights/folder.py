"""A folder of config.json and weights in the layout of Hugging Face: a GPT-2 or a Qwen3."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.errors import CheckpointError
from tokenloom.model import GPT
from tokenloom.saved_config import saved_model_config
from tokenloom.strict_json import load_json
from tokenloom.weights import huggingface, huggingface_qwen3
from tokenloom.weights.lazy_tensors import LazyModel, LazyTensor
from tokenloom.weights.safetensors_files import WEIGHTS, has_safetensors, lazy_safetensors, save_tensors
from tokenloom.weights.torch_files import BIN, BIN_INDEX, lazy_torch_tensors

CONFIG = "config.json"
METADATA = {"format": "pt"}  # without it, transformers refuses a file
# By the model_type of config.json, and by the family.
_READERS = {"gpt2": huggingface.from_huggingface, huggingface_qwen3.MODEL_TYPE: huggingface_qwen3.from_huggingface}
_WRITERS = {"gpt2": huggingface.to_huggingface, "modern": huggingface_qwen3.to_huggingface}


def read_folder(folder: Path) -> LazyModel:
    """The model in a folder of config.json and model.safetensors, its shards, or Hugging Face's older .bin files.

    Raises `CheckpointError` if a file is missing, and `WeightsError` for an unsupported architecture.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    kind = config.get("model_type")
    read = _READERS.get(str(kind))
    if read is None:
        if "tokenloom" in config:
            saved_model_config(config["tokenloom"])  # the error names the version that reads it
        raise CheckpointError(f'{folder} contains a "{kind}", which is not supported. Use a GPT-2 or a Qwen3.')
    return LazyModel(*read(config, tensors), str(folder))


def write_folder(folder: Path, model: GPT, eot_id: int, bos_id: int | None = None) -> None:
    """Write config.json and model.safetensors, which `AutoModelForCausalLM` opens; `bos_id` defaults to `eot_id`."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    config, tensors = folder_content(model.config, state, eot_id, bos_id)
    write_model_config(folder, config)
    save_tensors(folder / WEIGHTS, {name: tensor.cpu() for name, tensor in tensors.items()}, METADATA)


def folder_content(
    config: ModelConfig, state: Mapping[str, Tensor], eot_id: int, bos_id: int | None = None
) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
    """What config.json contains for a model, and its tensors under the names of Hugging Face."""
    return _WRITERS[config.family](config, state, eot_id, bos_id)


def write_model_config(folder: Path, config: Mapping[str, object]) -> None:
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _read_config(folder: Path) -> Mapping[str, Any]:
    try:
        config: object = load_json((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {CONFIG}. Name a run, a checkpoint, or a folder of GPT-2 from Hugging Face or OpenAI."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} cannot be read: {error}. Use another checkpoint.") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / CONFIG} cannot be read: it is not a JSON object. Use another checkpoint.")
    return cast(Mapping[str, Any], config)


def _read_tensors(folder: Path) -> Mapping[str, LazyTensor]:
    if has_safetensors(folder):
        return lazy_safetensors(folder)
    if any((folder / name).is_file() for name in (BIN_INDEX, BIN)):
        return lazy_torch_tensors(folder)
    raise CheckpointError(f"{folder} has no {WEIGHTS}. Name a run, a checkpoint or a Hugging Face GPT-2 folder.")
