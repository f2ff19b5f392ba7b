"""The loss of an output head, without all of its logits at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Logits of one chunk: 2^24 numbers are 64 MB in fp32, large enough to keep every core busy.
CHUNK_NUMBERS = 1 << 24


def head_loss(
    x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy in nats of targets (B, T) under the logits of x (B, T, C) @ weight (V, C)ᵀ.

    Positions with target -100 do not count. Past `CHUNK_NUMBERS` the logits are made chunk by chunk, and made again
    in the backward pass, so that memory does not grow with B·T·V. `reduction`: "mean" (over the targets that count)
    and "sum" give a scalar, "none" (B·T,).
    """
    x, targets = x.flatten(0, 1), targets.flatten()  # (B·T, C), (B·T,)
    rows = max(1, CHUNK_NUMBERS // weight.shape[0])
    if len(x) <= rows:
        losses = _losses(x, weight, targets, softcap)
    else:
        chunks = zip(x.split(rows), targets.split(rows), strict=True)
        losses = torch.cat([checkpoint(_losses, x, weight, t, softcap, use_reentrant=False) for x, t in chunks])  # type: ignore[list-item]
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / (targets != -100).sum()


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Logits bounded by ±softcap (Gemma 2, arXiv:2408.00118, section 2)."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _losses(x: Tensor, weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    # In fp32 whatever the matrix product's precision: a sum over V terms loses too much in bf16.
    return F.cross_entropy(capped(F.linear(x, weight), softcap).float(), targets, reduction="none")
