"""The cross-entropy loss of the output head, computed in chunks so that the full logits never exist."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 1 << 26  # of the logits in one chunk: enough work for every core
PART_LOGITS = 1 << 17  # of a chunk, for each thread: their softmax in fp32 fits into the cache of a core
WEIGHT_ROWS = 1 << 13  # of the weight, whose gradient is computed at once
# Targets with this value are not counted; torch's default `ignore_index`.
IGNORE_INDEX = -100

Reduction = Literal["mean", "sum", "none"]


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy in nats of targets (B, T) under the logits x (B, T, C) @ weight (V, C)ᵀ.

    Targets of `IGNORE_INDEX` are not counted. Logits are computed in chunks of at most `CHUNK_BYTES`. If a gradient is
    needed, it is computed in the forward pass together with each chunk, so that logits are neither kept nor recomputed.
    `reduction` "mean" (over the counted targets) and "sum" give a scalar, "none" gives (B·T,).
    """
    x, targets = x.flatten(0, 1), targets.flatten()  # (B·T, C), (B·T,)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if reduction != "none" and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        total = _summed_loss(x, weight, targets, dtype)
    else:
        rows = _chunk_rows(weight, max(dtype.itemsize, torch.float32.itemsize))
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
    """The summed loss; its forward pass also computes the gradient.

    It keeps B·T·C + V·C values for the backward pass instead of B·T·V logits, as the chunked losses of Liger Kernel and
    torch's `linear_cross_entropy` do. The latter is several times slower in bf16 on a CPU, where it also rounds the
    loss to bf16.
    """

    @staticmethod
    def forward(  # type: ignore[override]  # torch declares (ctx, *args, **kwargs)
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        rows = _chunk_rows(weight, dtype.itemsize)
        x_low = x.to(dtype)
        # The gradients first: what is allocated after them is freed before them, and leaves no gaps.
        dx, dw = torch.empty_like(x_low), torch.zeros_like(weight)
        w = weight.to(dtype)
        total = torch.zeros((), device=x.device, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        for start in range(0, len(x), rows):
            chunk = slice(start, start + rows)
            logits = F.linear(x_low[chunk], w)  # (rows, V)
            total += _replace_by_gradient(logits, targets[chunk])
            torch.mm(logits, w, out=dx[chunk])
            # In parts, because a product cannot be added to a tensor of another precision without a copy of its own.
            parts = zip(torch.split(dw, WEIGHT_ROWS), torch.split(logits, WEIGHT_ROWS, dim=1), strict=True)
            for dw_part, logits_part in parts:
                dw_part += logits_part.T @ x_low[chunk]
        ctx.save_for_backward(dx, dw)
        ctx.dtype = x.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]  # (ctx, *grads)
        dx, dw = ctx.saved_tensors
        # In place: autograd raises an error for a second backward pass through modified tensors.
        dx = dx.to(ctx.dtype).mul_(grad) if ctx.needs_input_grad[0] else None
        dw = dw.mul_(grad) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None


def _summed_loss(x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    return _SummedLoss.apply(x, weight, targets, dtype)  # pyright: ignore  # torch does not annotate `apply`


def _replace_by_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Replace logits (rows, V) by the gradient of their summed loss, softmax minus one-hot target; returns the loss."""
    counted, columns = (targets != IGNORE_INDEX)[:, None], targets.clamp(min=0)[:, None]
    all_counted = bool(counted.all())
    # A GPU computes the whole chunk at once.
    part_logits = PART_LOGITS * torch.get_num_threads() if logits.device.type == "cpu" else logits.numel()
    rows = max(1, part_logits // logits.shape[1])
    losses: list[Tensor] = []
    for part, counts, column in zip(*(torch.split(tensor, rows) for tensor in (logits, counted, columns)), strict=True):
        log_p = _at_least_fp32(part).log_softmax(dim=-1)
        losses.append(-log_p.gather(1, column) * counts)
        gradient = log_p.exp_().scatter_add_(1, column, torch.full_like(log_p[:, :1], -1))
        part.copy_(gradient if all_counted else gradient.mul_(counts))
    return torch.cat(losses).sum()


def _chunk_rows(weight: Tensor, itemsize: int) -> int:
    return max(1, CHUNK_BYTES // (weight.shape[0] * itemsize))


def _at_least_fp32(logits: Tensor) -> Tensor:
    """Half precision widened to fp32; fp32 and fp64 unchanged."""
    return logits.float() if logits.dtype.itemsize < 4 else logits
