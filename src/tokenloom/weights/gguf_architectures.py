"""The architectures of GGUF files that can be read and written: names of tensors, and fields for shape and settings.

Source: the architectures "gpt2" and "qwen3" of the gguf package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenloom.config import Family, ModelConfig
from tokenloom.weights.huggingface import LAYER_NORM_EPSILON

Fields = Mapping[str, Any]
"""Fields of an architecture, without its name before them: `context_length`."""


@dataclass(frozen=True)
class Architecture:
    """One architecture, and the family of ours that computes the same."""

    name: str
    family: Family
    modules: Mapping[str, str]
    """Names of modules in `Model.state_dict` (without h.0. before them), each with its name in GGUF."""
    fields: Callable[[ModelConfig], Fields]
    """The fields of a configuration: those that a file must have."""
    settings: Callable[[Fields], dict[str, Any]]
    """The settings of `ModelConfig` from the fields of a file."""
    required: Callable[[Fields], Fields]
    """Fields that change what the weights compute, with the only values that are supported."""

    def tensor_name(self, parameter: str) -> str:
        """GGUF's name of a parameter."""
        module, _, kind = parameter.rpartition(".")
        block = re.fullmatch(r"h\.(\d+)\.(.+)", module)
        return f"blk.{block[1]}.{self.modules[block[2]]}.{kind}" if block else f"{self.modules[module]}.{kind}"

    def parameter_name(self, tensor: str) -> str | None:
        """The parameter that GGUF's name stands for; None if it is not one of this architecture's."""
        module, _, kind = tensor.rpartition(".")
        block = re.fullmatch(r"blk\.(\d+)\.(.+)", module)
        ours = self._parameters.get(block[2] if block else module)
        if ours is None:
            return None
        return f"h.{block[1]}.{ours}.{kind}" if block else f"{ours}.{kind}"

    @cached_property
    def _parameters(self) -> Mapping[str, str]:
        return {theirs: ours for ours, theirs in self.modules.items()}


def _shape(config: ModelConfig) -> dict[str, Any]:
    return {
        "context_length": config.block_size,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.mlp_width,
        "attention.head_count": config.n_head,
    }


def _settings(fields: Fields) -> dict[str, Any]:
    return {
        "block_size": fields["context_length"],
        "n_embd": fields["embedding_length"],
        "n_layer": fields["block_count"],
        "n_head": fields["attention.head_count"],
    }


def _rounded(value: float) -> float:
    """The decimal number that was stored as f32: 1e-6 instead of 9.99999997e-07."""
    return float(f"{value:.7g}")


GPT2 = Architecture(
    name="gpt2",
    family="gpt2",
    modules={
        "wte": "token_embd",
        "wpe": "position_embd",
        "ln_f": "output_norm",
        "lm_head": "output",
        "ln_1": "attn_norm",
        "attn.c_attn": "attn_qkv",
        "attn.c_proj": "attn_output",
        "ln_2": "ffn_norm",
        "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    },
    fields=lambda config: {**_shape(config), "attention.layer_norm_epsilon": LAYER_NORM_EPSILON},
    settings=lambda fields: {**_settings(fields), "dropout": 0.1},
    required=lambda fields: {
        "attention.layer_norm_epsilon": LAYER_NORM_EPSILON,
        "feed_forward_length": 4 * fields.get("embedding_length", 0),
        "attention.head_count_kv": fields.get("attention.head_count"),
        "attention.causal": True,
    },
)
QWEN3 = Architecture(
    name="qwen3",
    family="modern",
    modules={
        "wte": "token_embd",
        "norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
    fields=lambda config: {
        **_shape(config),
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.freq_base": config.rope_theta,
    },
    settings=lambda fields: {
        **_settings(fields),
        "n_inner": fields["feed_forward_length"],
        "n_kv_head": fields.get("attention.head_count_kv"),
        "head_dim": fields.get("attention.key_length"),
        "norm_eps": _rounded(fields["attention.layer_norm_rms_epsilon"]),
        "rope_theta": _rounded(fields.get("rope.freq_base", ModelConfig().rope_theta)),
    },
    required=lambda fields: {
        "attention.value_length": fields.get("attention.key_length"),
        "rope.dimension_count": fields.get("attention.key_length"),
        "attention.causal": True,
    },
)
ARCHITECTURES: Mapping[str, Architecture] = {architecture.name: architecture for architecture in (GPT2, QWEN3)}
OF_FAMILY: Mapping[str, Architecture] = {architecture.family: architecture for architecture in ARCHITECTURES.values()}
