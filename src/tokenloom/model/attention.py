"""Causal attention."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenloom.model.dropout import drop
from tokenloom.model.kv_cache import KVCache

# B batch, T new tokens, S tokens attended to, H query heads, G key and value heads, D size of a head.

MAX_MATMUL_SCORES = 1 << 24  # attention scores of a batch, all heads together: 32 MB in bf16


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


def matmul_is_faster(device: str, dtype: torch.dtype, scores: int, length: int) -> bool:
    """Whether plain bf16 matrix products on a CPU, three times as fast as torch's fused attention, fit in memory.

    `scores` are those of all heads and sequences, which have `length` tokens.
    """
    return device == "cpu" and dtype == torch.bfloat16 and length > 1 and scores <= MAX_MATMUL_SCORES


def _matmul_is_faster(q: Tensor, k: Tensor) -> bool:
    B, H, T, _ = q.shape
    return k.shape[2] == T and matmul_is_faster(q.device.type, q.dtype, B * H * T * T, T)


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
