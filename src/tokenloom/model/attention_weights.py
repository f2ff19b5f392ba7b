"""Attention weights: how much each token of a text attends to each earlier one, in one head, or reduced in all.

Attention computes its weights inside of a fused operation, so they are computed again from the queries and keys. A copy
of the modules, which shares all tensors, records these: the model itself is unchanged, and may be in use meanwhile.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenloom.errors import UsageError
from tokenloom.model.language_model import GPT

# T tokens, H query heads, G key and value heads, D size of a head.


class _Attention(Protocol):
    """The attention of both families."""

    def project(self, *inputs: object) -> tuple[Tensor, Tensor, Tensor]: ...


def attention_weights(model: GPT, ids: Tensor, layer: int, head: int) -> Tensor:
    """The weights (T, T), in fp32, of one query head over ids (T,): row t is the query of token t.

    Rows sum to 1, and a token does not attend to later ones. `layer` and `head` are counted from 0. Raises `UsageError`
    for one that the model does not have, and for more tokens than its block size.
    """
    _require_index("layer", layer, model.config.n_layer)
    _require_index("head", head, model.config.n_head)
    recorded: list[Tensor] = []

    def record(number: int, q: Tensor, k: Tensor) -> None:
        if number == layer:
            recorded.append(_weights(q[head], k[head // _group(model)]))

    _record(model, ids, record)
    (weights,) = recorded
    return weights


def attention_maps(model: GPT, ids: Tensor, size: int) -> Tensor:
    """The weights of all heads in (L, H, S, S) cells, S at most `size`: the largest of the weights in each.

    Every cell has as many rows and columns, except at the end. Raises `UsageError` as `attention_weights` does.
    """
    maps: list[Tensor] = []

    def record(number: int, q: Tensor, k: Tensor) -> None:
        # Reduced at once: the weights of all layers would take gigabytes.
        weights = _weights(q, k.repeat_interleave(_group(model), dim=0))  # (H, T, T)
        maps.append(functional.max_pool2d(weights, -(-len(ids) // size), ceil_mode=True))

    _record(model, ids, record)
    return torch.stack(maps)


def _record(model: GPT, ids: Tensor, record: Callable[[int, Tensor, Tensor], None]) -> None:
    """Call `record` with the number of each layer, and its queries (H, T, D) and keys (G, T, D) over ids (T,)."""
    if not 1 <= len(ids) <= model.config.block_size:
        raise UsageError(
            f"attention needs from 1 to {model.config.block_size} tokens, got {len(ids)}. Use another text."
        )
    recording = copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model)}).eval()

    def observe(number: int, attention: nn.Module, inputs: tuple[object, ...]) -> None:
        q, k, _ = cast("_Attention", attention).project(*inputs[:-2])  # without the cache and the layer
        record(number, q[0], k[0])

    for number, block in enumerate(recording.h):
        _attention_of(block).register_forward_pre_hook(partial(observe, number))
    with torch.no_grad():
        recording.hidden(ids[None])


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """The weights (…, T, T) of queries and keys, each (…, T, D)."""
    scores = q.float() @ k.float().mT / math.sqrt(q.shape[-1])  # (…, T, T)
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


def _group(model: GPT) -> int:
    """Query heads that share a key head."""
    return model.config.n_head // model.config.kv_heads


def _attention_of(block: nn.Module) -> nn.Module:
    """The only child of a block that projects queries and keys."""
    (attention,) = (child for child in block.children() if hasattr(child, "project"))
    return attention


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """All tensors of a model; prepacked matrices are attributes, not parameters."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))


def _require_index(name: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise UsageError(f"{name} must be from 0 to {count - 1}, got {value}.")
