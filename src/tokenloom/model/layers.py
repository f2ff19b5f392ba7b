"""Layers without initial values: a model initializes all of its weights in `init_weights`.

Initializing a layer when it is created as well would consume random numbers, and so change the weights of a seed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """An uninitialized linear layer on the default device."""
    return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device=torch.get_default_device())


def embedding(rows: int, width: int) -> nn.Embedding:
    """An uninitialized embedding on the default device."""
    # Not via the meta device: initializing an embedding there imports torch._dynamo, which takes 40 MB.
    weight = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(weight, freeze=False)  # pyright: ignore  # torch does not annotate it


class RMSNorm(nn.Module):
    """x / RMS(x) · gains over the last dimension (arXiv:1910.07467), in the precision of x; gains are uninitialized."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x can be in half precision, and torch has no fused kernel for gains of another precision.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)
