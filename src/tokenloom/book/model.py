"""The book's GPTModel and the functions that load OpenAI's weights into it."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tokenloom.config import Config, ModelConfig
from tokenloom.errors import UsageError, WeightsError
from tokenloom.model.gpt2 import GPT2
from tokenloom.weights.book_names import BOOK_SETTINGS, state_from_book, state_to_book
from tokenloom.weights.download import OPENAI_BYTES, download_openai
from tokenloom.weights.lazy_tensors import LazyModel, LazyTensor
from tokenloom.weights.openai import parameters_as_book


class GPTModel(GPT2):
    """The GPT of chapter 4: ids (B, T) -> logits (B, T, V).

    The state dict has the book's names, and the same seed initializes the same weights as the book's class. `cfg` has
    the keys of GPT_CONFIG_124M; raises `UsageError` for a missing or unsupported key.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__(model_config(cfg))
        self.register_state_dict_post_hook(_to_book_names)
        self.register_load_state_dict_pre_hook(_from_book_names)

    @property
    def tok_emb(self) -> nn.Embedding:
        return self.wte

    @property
    def pos_emb(self) -> nn.Embedding:
        return self.wpe

    @property
    def out_head(self) -> nn.Linear:
        return self.lm_head


def model_config(cfg: Mapping[str, Any]) -> ModelConfig:
    """The model configuration of a dictionary like GPT_CONFIG_124M.

    Raises `UsageError` for a missing or unsupported key.
    """
    keys = {*BOOK_SETTINGS, "vocab_size", "qkv_bias"}
    for name in sorted(keys ^ cfg.keys()):
        problem = "is missing" if name in keys else "is not supported"
        raise UsageError(f"the key {name!r} of the configuration {problem}. Use: {', '.join(sorted(keys))}.")
    values = {BOOK_SETTINGS.get(name, name): value for name, value in cfg.items()}
    return Config.of({"model": {**values, "family": "gpt2", "init": "book", "tie_embeddings": False}}).model


def assign(left: Tensor, right: Tensor | ArrayLike) -> nn.Parameter:
    """`right` as a parameter to replace `left`; raises `WeightsError` if their shapes differ (section 5.5)."""
    right = torch.as_tensor(right)
    if left.shape != right.shape:
        raise WeightsError(
            f"Shape mismatch. Left: {tuple(left.shape)}, Right: {tuple(right.shape)}. Load weights of the model's size."
        )
    return nn.Parameter(right.clone().detach())


def load_weights_into_gpt(gpt: GPTModel, params: Mapping[str, Any]) -> None:
    """Copy OpenAI's weights, as `download_and_load_gpt2` returns them, into a model of the same size (section 5.5).

    Raises `CheckpointError` for a tensor that is missing or has another shape.
    """
    arrays = {"wte.weight": params["wte"], "wpe.weight": params["wpe"], "lm_head.weight": params["wte"]}
    arrays |= {"ln_f.weight": params["g"], "ln_f.bias": params["b"]}
    for i, block in enumerate(params["blocks"]):
        for module, layers in {"attn": ("c_attn", "c_proj"), "mlp": ("c_fc", "c_proj")}.items():
            for layer in layers:
                # OpenAI's matrices are (inputs, outputs), those of nn.Linear (outputs, inputs).
                arrays[f"h.{i}.{module}.{layer}.weight"] = block[module][layer]["w"].T
                arrays[f"h.{i}.{module}.{layer}.bias"] = block[module][layer]["b"]
        for norm in ("ln_1", "ln_2"):
            arrays[f"h.{i}.{norm}.weight"], arrays[f"h.{i}.{norm}.bias"] = block[norm]["g"], block[norm]["b"]
    tensors = {name: torch.as_tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}
    loaded = LazyModel(gpt.config, tensors, "params").read()
    with torch.no_grad():
        for parameter, value in zip(gpt.parameters(), loaded.parameters(), strict=True):
            parameter.copy_(value)


def download_and_load_gpt2(model_size: str, models_dir: str | Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """OpenAI's settings and nested weights of "124M", "355M", "774M" or "1558M", without TensorFlow (section 5.5).

    The files are downloaded to `models_dir`/`model_size` once and verified. Raises `WeightsError`.
    """
    if model_size not in OPENAI_BYTES:
        raise WeightsError(f'there is no GPT-2 of size "{model_size}". Choose from {", ".join(OPENAI_BYTES)}.')
    return parameters_as_book(download_openai(model_size, Path(models_dir) / model_size))


def _to_book_names(model: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    assert isinstance(model, GPT2)
    tensors = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    state.update({prefix + name: tensor for name, tensor in state_to_book(model.config, tensors).items()})


def _from_book_names(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    tensors = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    for name, tensor in state_from_book(tensors).items():
        state[prefix + name] = cast("LazyTensor", tensor)[:]  # the book's matrices are never transposed
