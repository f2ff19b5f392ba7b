"""Hugging Face's GPT-2: its config.json and parameter names, converted to and from Tokenloom's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.errors import WeightsError
from tokenloom.saved_config import saved_model_config
from tokenloom.weights.lazy_tensors import LazyTensor, StoredTensor, Transposed, is_tied

PREFIX = "transformer."
LAYER_NORM_EPSILON = 1e-5
# Hugging Face keeps the Conv1D layout of OpenAI, (inputs, outputs); Tokenloom uses nn.Linear's, (outputs, inputs).
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Causal masks, which older exports store as buffers.
IGNORED = (".attn.bias", ".attn.masked_bias")
# Names of the activation function, and the setting `gelu` of each.
GELUS: Mapping[str, str] = {
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu": "exact",
    "gelu_python": "exact",
}
# Settings that change what the model computes, with the values that match Tokenloom's GPT-2. With other values the
# weights would load, but the logits would be wrong.
# (`reorder_and_upcast_attn` changes only the precision of intermediate results.)
SUPPORTED_SETTINGS: Mapping[str, tuple[object, ...]] = {
    "activation_function": tuple(GELUS),
    "layer_norm_epsilon": (LAYER_NORM_EPSILON,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "pruned_heads": ({}, None),
}


def to_huggingface(
    config: ModelConfig, state: Mapping[str, Tensor], eot_id: int, bos_id: int | None = None
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """A GPT-2's configuration and tensors as `GPT2LMHeadModel` expects them; a tied head is left out."""
    state = dict(state)
    if config.tie_embeddings:
        state.pop("lm_head.weight", None)
    if not config.qkv_bias:  # Hugging Face's GPT-2 always has these biases
        embedding = state["wte.weight"]
        zeros = {f"h.{i}.attn.c_attn.bias": embedding.new_zeros(3 * config.n_embd) for i in range(config.n_layer)}
        state |= zeros
    tensors = {
        name if name.startswith("lm_head") else PREFIX + name: tensor.T if name.endswith(TRANSPOSED) else tensor
        for name, tensor in state.items()
    }
    settings = {**_huggingface_config(config, eot_id), "bos_token_id": eot_id if bos_id is None else bos_id}
    return settings, tensors


def from_huggingface(
    config: Mapping[str, Any], tensors: Mapping[str, LazyTensor]
) -> tuple[ModelConfig, dict[str, StoredTensor]]:
    """The configuration and tensors of a Hugging Face GPT-2; raises `WeightsError` for an unsupported architecture."""
    model = _model_config(config)
    state: dict[str, StoredTensor] = {}
    for full_name, tensor in tensors.items():
        name = full_name.removeprefix(PREFIX)
        if not name.endswith(IGNORED):
            state[name] = Transposed(tensor) if name.endswith(TRANSPOSED) else tensor
    if model.tie_embeddings and "wte.weight" in state:
        # Like transformers: a head that has other values than the embedding is kept, whatever the configuration says.
        model = model.model_copy(update={"tie_embeddings": is_tied(state)})
    if model.tie_embeddings:
        state.pop("lm_head.weight", None)
    return drop_zero_biases(model, state)


def drop_zero_biases(model: ModelConfig, state: dict[str, StoredTensor]) -> tuple[ModelConfig, dict[str, StoredTensor]]:
    """Drop the zero query, key and value biases that some formats require of a model that has none.

    If they are not zero any more, because the model was trained elsewhere, the configuration gets `qkv_bias`.
    """
    if model.qkv_bias:
        return model, state
    biases = {name: tensor for name, tensor in state.items() if name.endswith("c_attn.bias")}
    if any(not isinstance(tensor, Transposed) and bool(tensor[:].any()) for tensor in biases.values()):
        return model.model_copy(update={"qkv_bias": True}), state
    return model, {name: tensor for name, tensor in state.items() if name not in biases}


def _huggingface_config(config: ModelConfig, eot_id: int) -> dict[str, object]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None,
        "activation_function": "gelu_new" if config.gelu == "tanh" else "gelu",
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tie_word_embeddings": config.tie_embeddings,
        "eos_token_id": eot_id,
        "torch_dtype": "float32",
        "tokenloom": config.model_dump(),
    }


def _model_config(config: Mapping[str, Any]) -> ModelConfig:
    check_settings(config)
    if config.get("model_type") != "gpt2":
        raise WeightsError(
            f'architecture "{config.get("model_type")}" is not supported. '
            "Use a GPT-2 or a model trained with Tokenloom."
        )
    try:
        values = {
            "family": "gpt2",
            "vocab_size": config["vocab_size"],
            "block_size": config["n_positions"] if "n_positions" in config else config["n_ctx"],
            "n_layer": config["n_layer"],
            "n_head": config["n_head"],
            "n_embd": config["n_embd"],
            "dropout": config.get("resid_pdrop", 0.1),
            "gelu": GELUS[config.get("activation_function", "gelu_new")],
            "tie_embeddings": config.get("tie_word_embeddings", True),
        }
    except KeyError as missing:
        raise WeightsError(f"config.json has no {missing}. Use the config.json that came with the weights.") from None
    # Hugging Face's settings are the current ones: transformers can have resized the model since it was exported.
    return saved_model_config({**config.get("tokenloom", {}), **values})


def check_settings(config: Mapping[str, Any]) -> None:
    """Raise `WeightsError` for a setting of a config.json with which the weights would compute something else."""
    supported_settings = {**SUPPORTED_SETTINGS, "n_inner": (4 * config.get("n_embd", 0), None)}
    for name, supported in supported_settings.items():
        if name in config and config[name] not in supported:
            raise WeightsError(
                f"this GPT-2 has {name} {config[name]!r}, which is not supported. Supported: {supported[0]!r}."
            )
