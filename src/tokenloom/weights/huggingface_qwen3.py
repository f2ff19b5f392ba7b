"""Hugging Face's Qwen3: its config.json and parameter names, converted to and from those of the modern family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from tokenloom.config import Config, ModelConfig
from tokenloom.errors import WeightsError
from tokenloom.weights.lazy_tensors import LazyTensor, StoredTensor, is_tied

MODEL_TYPE = "qwen3"
# Prefixes of parameter names here and in transformers; inside a block, and for the output head, names are the same.
PREFIXES = {"wte.": "model.embed_tokens.", "h.": "model.layers.", "norm.": "model.norm."}
# Settings that change what the model computes, with the values that match the modern family.
SUPPORTED_SETTINGS: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "use_sliding_window": (False,),
}
DEFAULT_HEAD_DIM, DEFAULT_ROPE_THETA, DEFAULT_NORM_EPS = 128, 10_000.0, 1e-6  # of transformers' Qwen3Config


def to_huggingface(
    config: ModelConfig, state: Mapping[str, Tensor], eot_id: int, bos_id: int | None = None
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """The configuration and tensors of a model as `Qwen3ForCausalLM` expects them; a tied head is left out.

    `bos_id` defaults to `eot_id`.
    """
    tensors = {
        _renamed(name, PREFIXES): tensor
        for name, tensor in state.items()
        if name != "lm_head.weight" or not config.tie_embeddings
    }
    settings = {
        **_huggingface_config(config),
        "bos_token_id": eot_id if bos_id is None else bos_id,
        "eos_token_id": eot_id,
    }
    return settings, tensors


def from_huggingface(
    config: Mapping[str, Any], tensors: Mapping[str, LazyTensor]
) -> tuple[ModelConfig, dict[str, StoredTensor]]:
    """The configuration and tensors of a Hugging Face Qwen3; raises `WeightsError` for settings it does not support."""
    model = _model_config(config)
    ours = {theirs: name for name, theirs in PREFIXES.items()}
    state: dict[str, StoredTensor] = {_renamed(name, ours): tensor for name, tensor in tensors.items()}
    if model.tie_embeddings and "wte.weight" in state:
        # Like transformers: a head that has other values than the embedding is kept, whatever the configuration says.
        model = model.model_copy(update={"tie_embeddings": is_tied(state)})
    if model.tie_embeddings:
        state.pop("lm_head.weight", None)
    return model, state


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for prefix, replacement in prefixes.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def _huggingface_config(config: ModelConfig) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        # transformers 5 reads rope_parameters; earlier versions and other programs read rope_theta.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "use_sliding_window": False,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": "float32",
    }


def _model_config(config: Mapping[str, Any]) -> ModelConfig:
    for name, supported in SUPPORTED_SETTINGS.items():
        if name in config and config[name] not in supported:
            raise WeightsError(
                f"this Qwen3 has {name} {config[name]!r}, which is not supported. Supported: {supported[0]!r}."
            )
    try:
        values = {
            "family": "modern",
            "vocab_size": config["vocab_size"],
            "block_size": config["max_position_embeddings"],
            "n_embd": config["hidden_size"],
            "n_inner": config["intermediate_size"],
            "n_layer": config["num_hidden_layers"],
            "n_head": config["num_attention_heads"],
            "n_kv_head": config.get("num_key_value_heads") or config["num_attention_heads"],
            "head_dim": config.get("head_dim") or DEFAULT_HEAD_DIM,
            "rope_theta": _rope_theta(config),
            "norm_eps": config.get("rms_norm_eps", DEFAULT_NORM_EPS),
            "dropout": config.get("attention_dropout", 0.0),
            "tie_embeddings": config.get("tie_word_embeddings", False),
        }
    except KeyError as missing:
        raise WeightsError(f"config.json has no {missing}. Use the config.json that came with the weights.") from None
    return Config.of({"model": values}).model


def _rope_theta(config: Mapping[str, Any]) -> float:
    """The base of the rotary frequencies; raises `WeightsError` if they are scaled for longer contexts."""
    rope = cast("Mapping[str, Any]", config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise WeightsError(f'this Qwen3 has rotary positions of type "{kind}", which is not supported. Remove it.')
    return rope.get("rope_theta", config.get("rope_theta", DEFAULT_ROPE_THETA))
