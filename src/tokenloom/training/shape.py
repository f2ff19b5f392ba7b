"""The shape of a model: depth, width and heads for a number of weights, any of them fixed."""

from __future__ import annotations

import math
from collections.abc import Collection

from tokenloom.config import ModelConfig

PARTS = frozenset(("n_layer", "n_head", "n_embd", "head_dim"))
HEAD_SIZE = 64  # of an attention head, and the units of width for each layer
MIN_DEPTH, MAX_DEPTH = 2, 16
MIN_WIDTH_PER_LAYER = 32  # a model whose width is fixed is not deeper than this allows
MAX_HEADS = 1024
WEIGHTS_OF_BLOCK = 12  # · width²


def whole_shape(model: ModelConfig, fixed: Collection[str], weights: float) -> dict[str, int]:
    """Values for n_layer, n_embd, n_head and, if needed, head_dim that are not in `fixed`.

    The blocks have about `weights` weights; the fields of `model` in `fixed` are kept. Heads are 64 wide if the width
    allows it. If the width is no multiple of the heads, head_dim makes them independent of it (modern only).
    """
    chosen: dict[str, int] = {}
    groups = model.kv_heads if "n_kv_head" in fixed and model.n_kv_head else 1
    head_size = (model.head_dim if "head_dim" in fixed else None) or HEAD_SIZE
    depth, width = _depth_and_width(model, fixed, weights)
    heads = model.n_head if "n_head" in fixed else groups * max(1, round(width / head_size / groups))
    if "head_dim" not in fixed or model.head_dim is None:
        smallest = heads if model.family == "gpt2" else 2 * heads  # rotary embeddings need an even head size
        if "n_embd" not in fixed:
            unit = smallest if "n_head" in fixed else HEAD_SIZE * heads
            width = unit * max(1, round(width / unit))
        elif "n_head" not in fixed and width % smallest:
            if model.family == "gpt2" or "head_dim" in fixed:
                heads = _nearest_divisor(width, heads)
            else:
                chosen["head_dim"] = min(HEAD_SIZE, width + width % 2)
    chosen |= {"n_layer": depth, "n_embd": width, "n_head": heads}
    return {name: value for name, value in chosen.items() if name not in fixed}


def depth_of_size(weights: float) -> int:
    """The depth at which a model of 64 units of width for each layer has about so many weights in its blocks."""
    depth = round((weights / (WEIGHTS_OF_BLOCK * HEAD_SIZE**2)) ** (1 / 3))
    return min(MAX_DEPTH, max(MIN_DEPTH, depth))


def weights_at_depth(depth: int) -> float:
    """The inverse of `depth_of_size`."""
    return WEIGHTS_OF_BLOCK * HEAD_SIZE**2 * depth**3


def _depth_and_width(model: ModelConfig, fixed: Collection[str], weights: float) -> tuple[int, int]:
    """The size closest to `weights`; a width that is not fixed is a multiple of `HEAD_SIZE`."""
    depth, width = model.n_layer, model.n_embd
    if "n_layer" not in fixed and "n_embd" not in fixed:
        depth = depth_of_size(weights)
        width = HEAD_SIZE * depth
    elif "n_embd" not in fixed:
        width = HEAD_SIZE * max(1, round(math.sqrt(weights / (WEIGHTS_OF_BLOCK * depth)) / HEAD_SIZE))
    elif "n_layer" not in fixed:
        deepest = min(MAX_DEPTH, max(MIN_DEPTH, width // MIN_WIDTH_PER_LAYER))
        depth = min(deepest, max(MIN_DEPTH, round(weights / (WEIGHTS_OF_BLOCK * width**2))))
    return depth, width


def _nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number`, up to `MAX_HEADS`, that is nearest to `wanted`."""
    return min((d for d in range(1, min(number, MAX_HEADS) + 1) if number % d == 0), key=lambda d: abs(d - wanted))
