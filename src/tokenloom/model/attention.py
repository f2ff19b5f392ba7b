"""Causal attention, and the cache that keeps the keys and values of the tokens seen so far."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.model.dropout import drop

# B batch, T new tokens, S tokens attended to, H query heads, G key and value heads, D size of a head.


LARGEST_SQUARE = 1 << 24  # scores of all heads that are made at once: 32 MB in bf16


class KVCache:
    """Keys and values of up to `block_size` tokens a row; rows may have seen different numbers of tokens.

    A forward pass over ids (B, T) with a cache appends T tokens to every row, each at its own position. Storage is
    allocated once: keys and values are (n_layer, B, G, block_size, D), `lengths` is (B,) int64. On a CPU they are fp32
    whatever `dtype` says: there, attention of one query is several times slower in bf16.
    """

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        dtype = torch.float32 if device.type == "cpu" and dtype.itemsize < 4 else dtype
        shape = (config.n_layer, batch_size, config.kv_heads, config.block_size, config.head_dim)
        self.keys = _zeros(shape, device, dtype)
        self.values = _zeros(shape, device, dtype)
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.long)
        self.last_ids = torch.full((batch_size, 1), -1, device=device)  # for models that look at token pairs
        self._host_lengths = [0] * batch_size  # spares a device synchronisation for each layer

    @property
    def block_size(self) -> int:
        return self.keys.shape[3]

    def positions(self, T: int) -> Tensor:
        """Positions (B, T) of the next T tokens of every row."""
        assert max(self._host_lengths) + T <= self.block_size, "the caller slides the window before the cache is full"
        return self.lengths[:, None] + torch.arange(T, device=self.lengths.device)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store k, v (B, G, T, D) of the next tokens; give all keys and values (B, G, S, D) and who may see whom.

        The mask is (B, 1, T, S), or None where every row is as long: its first tokens are then plainly causal, and a
        single further token sees all.
        """
        T, start = k.shape[2], self._host_lengths[0]
        equal = all(length == start for length in self._host_lengths)
        if equal:
            self.keys[layer, :, :, start : start + T] = k
            self.values[layer, :, :, start : start + T] = v
        else:
            rows = torch.arange(k.shape[0], device=k.device)[:, None]
            self.keys[layer, rows, :, self.positions(T)] = k.transpose(1, 2).to(self.keys.dtype)
            self.values[layer, rows, :, self.positions(T)] = v.transpose(1, 2).to(self.values.dtype)
        S = max(self._host_lengths) + T
        keys, values = self.keys[layer, :, :, :S], self.values[layer, :, :, :S]
        if equal and (start == 0 or T == 1):
            return keys, values, None
        visible = torch.arange(S, device=k.device) <= self.positions(T)[:, :, None]  # (B, T, S)
        return keys, values, visible[:, None]

    def advance(self, ids: Tensor) -> None:
        """Count the tokens ids (B, T) as seen, once every layer has stored them."""
        self.lengths += ids.shape[1]
        self._host_lengths = [length + ids.shape[1] for length in self._host_lengths]
        self.last_ids = ids[:, -1:].clone()  # the caller may write over its ids

    def put(self, row: int, other: Self, other_row: int = 0) -> None:
        """Overwrite a row with a row of another cache: a sequence joins the batch."""
        length = other._host_lengths[other_row]
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            mine[:, row, :, :length] = theirs[:, other_row, :, :length]
        self.lengths[row] = other.lengths[other_row]
        self.last_ids[row] = other.last_ids[other_row]
        self._host_lengths[row] = other._host_lengths[other_row]

    def keep(self, rows: Sequence[int]) -> KVCache:
        """A cache with these rows only: the others have left the batch."""
        kept = object.__new__(KVCache)
        index = torch.as_tensor(rows, device=self.lengths.device)
        kept.keys, kept.values = self.keys[:, index], self.values[:, index]
        kept.lengths, kept.last_ids = self.lengths[index], self.last_ids[index]
        kept._host_lengths = [self._host_lengths[row] for row in rows]
        return kept


def _zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros: nothing that lies in unused places may be no number. On a CPU numpy's cost nothing until they are used."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return torch.zeros(shape, device=device, dtype=dtype)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, cache: KVCache | None = None, layer: int = 0, dropout: float = 0.0
) -> Tensor:
    """Scaled dot-product attention of q (B, H, T, D) over k, v (B, G, T, D) and what the cache holds -> (B, T, H·D).

    No token sees a later one. H is a multiple of G: query heads share key and value heads in groups (GQA,
    arXiv:2305.13245). Source: Vaswani et al. 2017, section 3.2; the book, section 3.5.
    """
    mask = None
    if cache is not None:
        k, v, mask = cache.append(layer, k, v)
        q = q.to(k.dtype)
    if mask is None and _products_are_faster(q, k):
        return _by_products(q, k, v, dropout).transpose(1, 2).flatten(2)
    y = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None and q.shape[2] == k.shape[2],
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return y.transpose(1, 2).flatten(2)  # (B, T, H·D)


def _products_are_faster(q: Tensor, k: Tensor) -> bool:
    """Where plain products in bf16 take a third of the time of torch's fused attention, and their square has room."""
    B, H, T, _ = q.shape
    return (
        q.device.type == "cpu" and q.dtype == torch.bfloat16 and 1 < T == k.shape[2] and B * H * T * T <= LARGEST_SQUARE
    )


def _by_products(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal attention as the formula has it: (B, H, T, D) -> (B, H, T, D)."""
    if q.shape[1] != k.shape[1]:
        k, v = (y.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for y in (k, v))
    k, v = k.to(q.dtype), v.to(q.dtype)
    with torch.autocast(q.device.type, enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, T)
        weights = (scores + _future(q.shape[2], q.dtype)).softmax(dim=-1)
        return drop(weights, dropout) @ v


@lru_cache(maxsize=8)
def _future(T: int, dtype: torch.dtype) -> Tensor:
    """What to add to scores (T, T): -inf where a token would see a later one."""
    with torch.inference_mode(False):  # it is kept, and may be needed for a gradient later
        return torch.full((T, T), float("-inf"), dtype=dtype).triu(1)
