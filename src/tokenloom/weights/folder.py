"""A folder of config.json and weights: Hugging Face's GPT-2, and Tokenloom's own families in the same layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tokenloom.config import Config
from tokenloom.errors import CheckpointError
from tokenloom.model import GPT
from tokenloom.strict_json import load_json
from tokenloom.weights.huggingface import from_huggingface, to_huggingface
from tokenloom.weights.lazy_tensors import LazyModel, LazyTensor
from tokenloom.weights.safetensors_files import INDEX, WEIGHTS, lazy_safetensors, save_tensors
from tokenloom.weights.torch_files import BIN, BIN_INDEX, lazy_torch_tensors

CONFIG = "config.json"


def read_folder(folder: Path) -> LazyModel:
    """The model in a folder of config.json and model.safetensors, its shards, or Hugging Face's older .bin files.

    Raises `CheckpointError` if a file is missing, and `WeightsError` for an unsupported architecture.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    if config.get("model_type") == "gpt2":
        model_config, renamed = from_huggingface(config, tensors)
        return LazyModel(model_config, renamed, str(folder))
    if "tokenloom" in config:
        return LazyModel(Config.of({"model": config["tokenloom"]}).model, tensors, str(folder))
    raise CheckpointError(
        f'{folder} contains a "{config.get("model_type")}", which is not supported. '
        "Use a GPT-2 or a model trained with Tokenloom."
    )


def write_folder(folder: Path, model: GPT, eot_id: int, bos_id: int | None = None) -> None:
    """Write config.json and model.safetensors; `AutoModelForCausalLM` opens the folder of a GPT-2.

    `bos_id` defaults to `eot_id`.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if model.config.family == "gpt2":
        config, tensors = to_huggingface(model.config, state, eot_id, bos_id)
    else:
        config = {"model_type": f"tokenloom-{model.config.family}", "tokenloom": model.config.model_dump()}
        tensors = {n: t for n, t in state.items() if n != "lm_head.weight" or not model.config.tie_embeddings}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tensors(folder / WEIGHTS, {name: tensor.cpu() for name, tensor in tensors.items()}, {"format": "pt"})


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
    if any((folder / name).is_file() for name in (INDEX, WEIGHTS)):
        return lazy_safetensors(folder)
    if any((folder / name).is_file() for name in (BIN_INDEX, BIN)):
        return lazy_torch_tensors(folder)
    raise CheckpointError(f"{folder} has no {WEIGHTS}. Name a run, a checkpoint or a Hugging Face GPT-2 folder.")
