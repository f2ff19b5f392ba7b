"""A folder of config.json and weights: Hugging Face's GPT-2, and our own families in the same shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tokenloom.config import Config
from tokenloom.errors import CheckpointError
from tokenloom.model import Model
from tokenloom.weights.huggingface import from_huggingface, to_huggingface
from tokenloom.weights.lazy_tensors import INDEX, WEIGHTS, LazyModel, LazyTensor, lazy_safetensors
from tokenloom.weights.torch_files import BIN, BIN_INDEX, torch_file_tensors

CONFIG = "config.json"


def read_folder(folder: Path) -> LazyModel:
    """The model in a folder of config.json and model.safetensors, or Hugging Face's sharded or older files.

    Raises `CheckpointError` where there is none, and `WeightsError` for an architecture that is not ours.
    """
    config = _read_config(folder)
    tensors = _read_tensors(folder)
    if config.get("model_type") == "gpt2":
        model_config, named = from_huggingface(config, tensors)
        return LazyModel(model_config, named, str(folder))
    if "tokenloom" in config:
        return LazyModel(Config.of({"model": config["tokenloom"]}).model, tensors, str(folder))
    raise CheckpointError(f'{folder} holds a "{config.get("model_type")}". Supported: gpt2 and our own checkpoints.')


def write_folder(folder: Path, model: Model, eot_id: int) -> None:
    """Write config.json and model.safetensors; for a GPT-2, `AutoModelForCausalLM` opens them as they stand."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if model.config.family == "gpt2":
        config, tensors = to_huggingface(model.config, state, eot_id)
    else:
        config = {"model_type": f"tokenloom-{model.config.family}", "tokenloom": model.config.model_dump()}
        tensors = {n: t for n, t in state.items() if n != "lm_head.weight" or not model.config.tie_embeddings}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} has no {CONFIG}. Name a run, a checkpoint, or a folder of GPT-2 from Hugging Face or OpenAI."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{folder} cannot be read: {error}. Use another checkpoint.") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder} cannot be read: {CONFIG} is not an object. Use another checkpoint.")
    return config


def _read_tensors(folder: Path) -> dict[str, LazyTensor]:
    if any((folder / name).is_file() for name in (INDEX, WEIGHTS)):
        return lazy_safetensors(folder)
    if any((folder / name).is_file() for name in (BIN_INDEX, BIN)):
        return torch_file_tensors(folder)
    raise CheckpointError(f"{folder} has no {WEIGHTS}. Name a run, a checkpoint or a Hugging Face GPT-2 folder.")
