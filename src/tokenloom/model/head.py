"""The cross-entropy loss of the output head, computed in chunks so that the full logits never exist."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits in one chunk: 64 MB in fp32, enough work for every core.
CHUNK_LOGITS = 1 << 24
# Targets with this value are not counted; torch's default `ignore_index`.
IGNORE_INDEX = -100

Reduction = Literal["mean", "sum", "none"]


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy in nats of targets (B, T) under the logits x (B, T, C) @ weight (V, C)ᵀ.

    Targets of `IGNORE_INDEX` are not counted. Logits are computed in chunks of at most `CHUNK_LOGITS`. If a gradient is
    needed, it is computed in the forward pass together with each chunk, so that logits are neither kept nor recomputed.
    `reduction` "mean" (over the counted targets) and "sum" give a scalar, "none" gives (B·T,).
    """
    x, targets = x.flatten(0, 1), targets.flatten()  # (B·T, C), (B·T,)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if reduction != "none" and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        total = _summed_loss(x, weight, targets, dtype)
    else:
        rows = _chunk_rows(weight)
        chunks = zip(torch.split(x.to(dtype), rows), torch.split(targets, rows), strict=True)
        losses = torch.cat([_losses(x, weight.to(dtype), t) for x, t in chunks])
        if reduction == "none":
            return losses
        total = losses.sum()
    return total if reduction == "sum" else total / (targets != IGNORE_INDEX).sum()


def _losses(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    # In fp32 for any precision of the matrix product: a sum over V terms is too inaccurate in bf16.
    logits = _at_least_fp32(F.linear(x, weight))
    return F.cross_entropy(logits, targets, reduction="none")


class _SummedLoss(torch.autograd.Function):
    """The summed loss; its forward pass also computes the gradient, softmax minus one-hot target at the logits.

    It keeps B·T·C + V·C values for the backward pass instead of B·T·V logits, as the chunked losses of Liger Kernel and
    torch's `linear_cross_entropy` do.
    """

    @staticmethod
    def forward(  # type: ignore[override]  # torch declares (ctx, *args, **kwargs)
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        rows = _chunk_rows(weight)
        w, x_low = weight.to(dtype), x.to(dtype)
        total = torch.zeros((), device=x.device, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        dx = torch.empty_like(x_low)
        dw: Tensor | None = None
        for start in range(0, len(x), rows):
            chunk = slice(start, start + rows)
            target, counted = targets[chunk].clamp(min=0)[:, None], targets[chunk] != IGNORE_INDEX
            logits = _at_least_fp32(F.linear(x_low[chunk], w))  # (rows, V)
            log_z = logits.logsumexp(dim=-1, keepdim=True)
            total += ((log_z - logits.gather(1, target))[:, 0] * counted).sum()
            gradient = logits.sub_(log_z).exp_()
            gradient.scatter_add_(1, target, -torch.ones_like(log_z))
            if not bool(counted.all()):
                gradient *= counted[:, None]
            gradient = gradient.to(dtype)
            torch.mm(gradient, w, out=dx[chunk])
            chunk_dw = gradient.T @ x_low[chunk]
            # Accumulated over chunks in the precision of the weight.
            dw = chunk_dw if len(x) <= rows else chunk_dw.to(weight.dtype) if dw is None else dw.add_(chunk_dw)
        ctx.save_for_backward(dx, dw)
        ctx.dtypes = x.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # (ctx, *grads)
        dx, dw = ctx.saved_tensors
        # In place: autograd raises an error for a second backward pass through modified tensors.
        dx = dx.to(ctx.dtypes[0]).mul_(grad) if ctx.needs_input_grad[0] else None
        dw = dw.to(ctx.dtypes[1]).mul_(grad) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None


def _summed_loss(x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    return _SummedLoss.apply(x, weight, targets, dtype)  # pyright: ignore  # torch does not annotate `apply`


def _chunk_rows(weight: Tensor) -> int:
    return max(1, CHUNK_LOGITS // weight.shape[0])


def _at_least_fp32(logits: Tensor) -> Tensor:
    """Half precision widened to fp32; fp32 and fp64 unchanged."""
    return logits.float() if logits.dtype.itemsize < 4 else logits
