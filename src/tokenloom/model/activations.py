"""Memory that a training step keeps for the backward pass, computed from the configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenloom.compute.hardware import Hardware
from tokenloom.config import ModelConfig
from tokenloom.model.attention import matmul_is_faster
from tokenloom.model.head import CHUNK_BYTES, PART_LOGITS

RESIDUAL = 4  # bytes of a value of the residual stream, which is in fp32


def kept_bytes(config: ModelConfig, sequences: int, hardware: Hardware, *, recomputed: bool = False) -> int:
    """Bytes of what the blocks keep of `sequences` sequences of full length, and of one temporary tensor of an MLP.

    With activation checkpointing (`recomputed`), each block keeps its input, and one block at a time all it needs.
    """
    block, tokens = block_bytes(config, sequences, hardware), sequences * config.block_size
    temporary = tokens * config.mlp_width * hardware.dtype.itemsize
    if recomputed:
        return config.n_layer * tokens * config.n_embd * RESIDUAL + block + temporary
    return config.n_layer * block + temporary


def block_bytes(config: ModelConfig, sequences: int, hardware: Hardware) -> int:
    """Bytes of what one block keeps: inputs of norms, matrix products and activation functions."""
    tokens = sequences * config.block_size
    per_token = _PER_TOKEN[config.family](config, hardware)
    return tokens * (per_token + _dropout_bytes(config, hardware)) + _attention_bytes(config, sequences, hardware)


def head_bytes(config: ModelConfig, sequences: int, hardware: Hardware) -> int:
    """Bytes of the final norm and the output head: a chunk of logits, and the gradient of the head and of its input.

    See `tokenloom.model.head`: the gradient is computed together with the loss, and the logits are not kept.
    """
    size, tokens = hardware.dtype.itemsize, sequences * config.block_size
    vocabulary, width = config.vocabulary, config.n_embd
    logits = min(tokens, max(1, CHUNK_BYTES // (vocabulary * size))) * vocabulary
    # Of the softmax in fp32, of which a CPU computes a small part at a time.
    softmax = min(logits, max(PART_LOGITS, vocabulary)) if hardware.device == "cpu" else logits
    low_precision_head = vocabulary * width * size if size < RESIDUAL else 0
    gradients = vocabulary * width * RESIDUAL + tokens * width * size
    norm = tokens * width * (RESIDUAL + size)
    return logits * size + softmax * (8 if size < RESIDUAL else 4) + low_precision_head + gradients + norm


def _gpt2_bytes(config: ModelConfig, hardware: Hardware) -> int:
    """Of a token: the inputs of two norms and of what follows them, and the MLP before and after its GELU."""
    width, size = config.n_embd, hardware.dtype.itemsize
    return 2 * (width * RESIDUAL + 8) + size * (2 * width + 2 * config.mlp_width)


def _modern_bytes(config: ModelConfig, hardware: Hardware) -> int:
    """Of a token: the inputs of the norms, those of queries and keys included, and the gated MLP."""
    width, size = config.n_embd, hardware.dtype.itemsize
    heads = config.n_head + config.kv_heads
    normalized = heads * config.head_size
    if hardware.device == "cpu":  # torch has no fused RMSNorm there: it keeps the scaled input in fp32 as well
        norms = 2 * (2 * width * RESIDUAL + 4) + 2 * normalized * RESIDUAL
    else:
        norms = 2 * (width * RESIDUAL + 4) + normalized * size
    # Autocast converts the output of a norm for each of the layers that read it: three, and two of the MLP.
    inputs = 5 if size < RESIDUAL else 2
    return norms + 4 * heads + size * (inputs * width + 4 * config.mlp_width)


_PER_TOKEN: Mapping[str, Callable[[ModelConfig, Hardware], int]] = {"gpt2": _gpt2_bytes, "modern": _modern_bytes}


def _dropout_bytes(config: ModelConfig, hardware: Hardware) -> int:
    """Of a token: the masks of a block's two additions to the residual stream."""
    if not config.dropout:
        return 0
    return 2 * config.n_embd * (RESIDUAL if hardware.device == "cpu" and hardware.precision == "fp32" else 1)


def _attention_bytes(config: ModelConfig, sequences: int, hardware: Hardware) -> int:
    """Queries, keys, values, and the result; the scores where attention is not fused, else the normalizers."""
    size, heads, length, tokens = (
        hardware.dtype.itemsize,
        config.n_head,
        config.block_size,
        sequences * config.block_size,
    )
    queries, keys = heads * config.head_size, config.kv_heads * config.head_size
    scores = sequences * heads * length * length
    if matmul_is_faster(hardware.device, hardware.dtype, scores, length):
        return size * (4 * tokens * queries + scores) + (scores * (size + 1) if config.dropout else 0)
    if hardware.device == "cpu" and config.dropout:  # torch has no fused attention with dropout there
        return size * (4 * tokens * queries + 3 * scores)
    # The modern family's result has another layout than its projection reads, and is copied.
    results = queries if config.family == "gpt2" else 2 * queries
    return tokens * (size * (queries + 2 * keys + results) + 4 * heads)
