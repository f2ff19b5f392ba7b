"""Causal attention, and the cache of keys and values of earlier tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.model.dropout import drop

# B batch, T new tokens, S tokens attended to, H query heads, G key and value heads, D size of a head.

MAX_MATMUL_SCORES = 1 << 24  # attention scores of a batch, all heads together: 32 MB in bf16


class KVCache:
    """Keys and values of up to `block_size` tokens in each row; rows may have different lengths.

    A forward pass over ids (B, T) with a cache appends T tokens to every row, each at the row's own positions. Storage
    is allocated once: keys and values are (n_layer, B, G, block_size, D), `lengths` is (B,) int64. On a CPU keys and
    values are fp32 for any `dtype`, because attention with a single query is several times slower in bf16 there.
    """

    def __init__(self, config: ModelConfig, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        dtype = torch.float32 if device.type == "cpu" and dtype.itemsize < 4 else dtype
        shape = (config.n_layer, batch_size, config.kv_heads, config.block_size, config.head_size)
        self.keys = _zeros(shape, device, dtype)
        self.values = _zeros(shape, device, dtype)
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.long)
        self._host_lengths = [0] * batch_size  # a copy that needs no device synchronization

    @property
    def block_size(self) -> int:
        return self.keys.shape[3]

    def positions(self, T: int) -> Tensor:
        """Positions (B, T) of the next T tokens of every row."""
        assert max(self._host_lengths) + T <= self.block_size, "the caller slides the window before the cache is full"
        return self.lengths[:, None] + torch.arange(T, device=self.lengths.device)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store k, v (B, G, T, D) of the next tokens; return all keys and values (B, G, S, D) and the attention mask.

        The mask (B, 1, T, S) is true where a query may attend to a key. It is None if all rows have the same length and
        either were empty, so that the plain causal mask applies, or receive a single token, which attends to all.
        """
        T, start = k.shape[2], self._host_lengths[0]
        same_length = all(length == start for length in self._host_lengths)
        if same_length:
            self.keys[layer, :, :, start : start + T] = k
            self.values[layer, :, :, start : start + T] = v
        else:
            rows = torch.arange(k.shape[0], device=k.device)[:, None]
            self.keys[layer, rows, :, self.positions(T)] = k.transpose(1, 2).to(self.keys.dtype)
            self.values[layer, rows, :, self.positions(T)] = v.transpose(1, 2).to(self.values.dtype)
        S = max(self._host_lengths) + T
        keys, values = self.keys[layer, :, :, :S], self.values[layer, :, :, :S]
        if same_length and (start == 0 or T == 1):
            return keys, values, None
        visible = torch.arange(S, device=k.device) <= self.positions(T)[:, :, None]  # (B, T, S)
        return keys, values, visible[:, None]

    def advance(self, T: int) -> None:
        """Add T to the lengths, after every layer has stored the keys and values of T tokens."""
        self.lengths += T
        self._host_lengths = [length + T for length in self._host_lengths]

    def copy_row(self, row: int, source: KVCache, source_row: int = 0) -> None:
        """Overwrite a row with a row of another cache."""
        length = source._host_lengths[source_row]
        self.keys[:, row, :, :length] = source.keys[:, source_row, :, :length]
        self.values[:, row, :, :length] = source.values[:, source_row, :, :length]
        self.lengths[row] = source.lengths[source_row]
        self._host_lengths[row] = length

    def select(self, rows: Sequence[int]) -> KVCache:
        """A new cache with a copy of these rows, in this order."""
        selected = object.__new__(KVCache)
        index = torch.as_tensor(rows, device=self.lengths.device)
        selected.keys, selected.values = self.keys[:, index], self.values[:, index]
        selected.lengths = self.lengths[index]
        selected._host_lengths = [self._host_lengths[row] for row in rows]
        return selected


def _zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros, because a masked slot that held NaN would still give NaN. On a CPU numpy allocates them lazily."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.as_tensor(np.zeros(shape, dtype=np.float32))
    return torch.zeros(shape, device=device, dtype=dtype)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, cache: KVCache | None = None, layer: int = 0, dropout: float = 0.0
) -> Tensor:
    """Causal scaled dot-product attention of q (B, H, T, D) over k, v (B, G, T, D) and the cached ones -> (B, T, H·D).

    H is a multiple of G: groups of query heads share key and value heads (GQA, arXiv:2305.13245). Source: Vaswani et
    al. 2017, section 3.2; the book, section 3.5.
    """
    mask = None
    if cache is not None:
        k, v, mask = cache.append(layer, k, v)
        q = q.to(k.dtype)
    if mask is None and _matmul_is_faster(q, k):
        return _matmul_attention(q, k, v, dropout).transpose(1, 2).flatten(2)
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


def _matmul_is_faster(q: Tensor, k: Tensor) -> bool:
    """Whether plain bf16 matrix products on a CPU, three times as fast as torch's fused attention, fit in memory."""
    B, H, T, _ = q.shape
    return (
        q.device.type == "cpu"
        and q.dtype == torch.bfloat16
        and 1 < T == k.shape[2]
        and B * H * T * T <= MAX_MATMUL_SCORES
    )


def _matmul_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal attention by explicit matrix products: (B, H, T, D) -> (B, H, T, D)."""
    if q.shape[1] != k.shape[1]:
        k, v = (y.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for y in (k, v))
    k, v = k.to(q.dtype), v.to(q.dtype)
    with torch.autocast(q.device.type, enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, T)
        # torch.compile computes constants once by itself, and cannot trace the cache.
        causal_mask = _causal_mask.__wrapped__ if torch.compiler.is_compiling() else _causal_mask
        weights = (scores + causal_mask(q.shape[2], q.dtype)).softmax(dim=-1)
        return drop(weights, dropout) @ v


@lru_cache(maxsize=8)
def _causal_mask(T: int, dtype: torch.dtype) -> Tensor:
    """Additive mask (T, T): -inf for keys after the query, else 0."""
    if torch.compiler.is_compiling():
        return torch.full((T, T), float("-inf"), dtype=dtype).triu(1)
    with torch.inference_mode(False):  # cached, and possibly used with autograd later
        return torch.full((T, T), float("-inf"), dtype=dtype).triu(1)
