"""The attention weights of one head: how much each token of a text attends to each earlier one.

Attention computes its weights inside of a fused operation, so they are computed again from the queries and keys. A copy
of the modules, which shares all tensors, records these: the model itself is unchanged, and may be in use meanwhile.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor, nn

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
    config = model.config
    _require_index("layer", layer, config.n_layer)
    _require_index("head", head, config.n_head)
    if not 1 <= len(ids) <= config.block_size:
        raise UsageError(f"attention needs from 1 to {config.block_size} tokens, got {len(ids)}. Use another text.")
    recorded: list[tuple[Tensor, Tensor]] = []

    def record(attention: nn.Module, inputs: tuple[object, ...]) -> None:
        q, k, _ = cast("_Attention", attention).project(*inputs[:-2])  # without the cache and the layer
        recorded.append((q[0, head], k[0, head // (config.n_head // config.kv_heads)]))  # each (T, D)

    recording = copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model)}).eval()
    _attention_of(recording.h[layer]).register_forward_pre_hook(record)
    with torch.no_grad():
        recording.hidden(ids[None])
        ((q, k),) = recorded
        scores = q.float() @ k.float().T / math.sqrt(config.head_size)  # (T, T)
        later = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -math.inf).softmax(dim=-1)


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
