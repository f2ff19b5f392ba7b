"""The loss of an output head, without all of its logits at once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits of one chunk: 2^24 numbers are 64 MB in fp32, large enough to keep every core busy.
CHUNK_NUMBERS = 1 << 24
IGNORE_INDEX = -100  # torch's own mark for targets that do not count


def head_loss(
    x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy in nats of targets (B, T) under the logits of x (B, T, C) @ weight (V, C)ᵀ.

    Positions with target -100 do not count. The logits are made chunk by chunk, at most `CHUNK_NUMBERS` at once; where
    a gradient is wanted it is made with them, so that they are needed neither again nor for long. `reduction`: "mean"
    (over the targets that count) and "sum" give a scalar, "none" (B·T,).
    """
    x, targets = x.flatten(0, 1), targets.flatten()  # (B·T, C), (B·T,)
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if reduction != "none" and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        total = _SummedLoss.apply(x, weight, targets, softcap, dtype)
    else:
        rows = _rows_at_once(weight)
        chunks = zip(x.to(dtype).split(rows), targets.split(rows), strict=True)
        losses = torch.cat([_losses(x, weight.to(dtype), t, softcap) for x, t in chunks])
        if reduction == "none":
            return losses
        total = losses.sum()
    return total if reduction == "sum" else total / (targets != IGNORE_INDEX).sum()


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """Logits bounded by ±softcap (Gemma 2, arXiv:2408.00118, section 2)."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _losses(x: Tensor, weight: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    # In fp32 whatever the matrix product's precision: a sum over V terms loses too much in bf16.
    logits = _widened(F.linear(x, weight))
    return F.cross_entropy(capped(logits, softcap), targets, reduction="none")


class _SummedLoss(torch.autograd.Function):
    """The summed loss, and with it the gradient: that of the logits is their softmax less the target's one.

    A gradient kept is B·T·C and V·C numbers; logits kept would be B·T·V. Source of the idea: the chunked losses of
    Liger Kernel and of torch's own `linear_cross_entropy`, which know no cap.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, dtype: torch.dtype
    ) -> Tensor:
        rows = _rows_at_once(weight)
        w, x_low = weight.to(dtype), x.to(dtype)
        total = torch.zeros((), device=x.device, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        dx = torch.empty_like(x_low)
        dw: Tensor | None = None
        for start in range(0, len(x), rows):
            place = slice(start, start + rows)
            target, counts = targets[place].clamp(min=0)[:, None], targets[place] != IGNORE_INDEX
            logits = capped(_widened(F.linear(x_low[place], w)), softcap)  # (rows, V)
            logs = logits.logsumexp(dim=-1, keepdim=True)
            total += ((logs - logits.gather(1, target))[:, 0] * counts).sum()
            slope = None if softcap is None else 1 - (logits / softcap).square()  # of the cap
            gradient = logits.sub_(logs).exp_()
            gradient.scatter_add_(1, target, -torch.ones_like(logs))
            if not bool(counts.all()):
                gradient *= counts[:, None]
            if slope is not None:
                gradient *= slope
            gradient = gradient.to(dtype)
            torch.mm(gradient, w, out=dx[place])
            part = gradient.T @ x_low[place]
            # Many chunks add up in full precision.
            dw = part if len(x) <= rows else part.to(weight.dtype) if dw is None else dw.add_(part)
        ctx.save_for_backward(dx, dw)
        ctx.dtypes = x.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        dx, dw = ctx.saved_tensors
        # In place: nobody asks twice, and where somebody did, autograd would notice.
        dx = dx.to(ctx.dtypes[0]).mul_(slope) if ctx.needs_input_grad[0] else None
        dw = dw.to(ctx.dtypes[1]).mul_(slope) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None, None


def _rows_at_once(weight: Tensor) -> int:
    return max(1, CHUNK_NUMBERS // weight.shape[0])


def _widened(logits: Tensor) -> Tensor:
    """In fp32, or more where it is more already."""
    return logits.float() if logits.dtype.itemsize < 4 else logits
