"""A copy of a model for inference: matrices prepacked for products with few rows, in fp32, bf16 or int8.

Generating a token reads every weight once and computes little, so its speed is limited by memory bandwidth. torch's
matrix products with the usual weight layout reach a third of that bandwidth on a CPU, with oneDNN's prepacked layout
most of it.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.compute.runtime import Runtime
from tokenloom.errors import UsageError

M = TypeVar("M", bound=nn.Module)

Quantization = Literal["int8"]
_INT8_MAX = 127
# torch's int8 kernel reads inputs in vectors of 16, and beyond the end of a row that is not a multiple of it.
_INT8_VECTOR = 16
# With as many rows, it is faster to convert the int8 weight to bf16 for a bf16 product: torch's int8 kernel computes
# each row by itself.
_BF16_ROWS = 8


def copy_for_inference(model: M, runtime: Runtime, quantize: str | None = None) -> M:
    """A copy of the model on the runtime's device with prepacked matrices; residual stream and norms stay in fp32.

    `quantize` "int8" rounds each row of a matrix to 255 levels (weights only). `model` is not changed; norms, and all
    weights that need no conversion, are shared with it. Raises `UsageError` for any other `quantize`.
    """
    if quantize not in (None, "int8"):
        raise UsageError(f'weights cannot be quantized to "{quantize}". Choose int8, or omit it.')
    shared = [*model.parameters(), *model.buffers()]
    result = copy.deepcopy(model, {id(tensor): tensor for tensor in shared}).to(runtime.device)
    dtype = runtime.dtype if quantize is None else torch.bfloat16
    for parent in result.modules():
        if quantize is None and runtime.device.type == "cpu":
            _fuse_gelu(parent, dtype)
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child) if quantize else PrepackedLinear(child, dtype))
            elif isinstance(child, nn.Embedding):
                weight = child.weight.detach().to(dtype)
                embedding = nn.Embedding.from_pretrained(weight)  # pyright: ignore  # torch does not annotate it
                setattr(parent, name, embedding)
    return result.eval()


def _fuse_gelu(parent: nn.Module, dtype: torch.dtype) -> None:
    """Replace a linear layer and the GELU that follows it by one layer."""
    for (name, child), (next_name, following) in pairwise(list(parent.named_children())):
        if isinstance(child, nn.Linear) and isinstance(following, nn.GELU):
            setattr(parent, name, PrepackedLinear(child, dtype, following))
            setattr(parent, next_name, nn.Identity())


class PrepackedLinear(nn.Module):
    """x (…, inputs) -> (…, outputs) in `dtype`, with a weight in oneDNN's layout where oneDNN is available.

    With `gelu`, the result is that of the GELU after the layer, which oneDNN computes along with it.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: nn.GELU | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self.gelu = gelu
        self.weight = linear.weight.detach().to(dtype)
        self.bias = _bias(linear, dtype)
        self.prepacked = self.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if self.prepacked:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.prepacked:
            unary, approximation = ("none", "") if self.gelu is None else ("gelu", self.gelu.approximate)
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, unary, [], approximation)
        y = F.linear(x, self.weight, self.bias)
        return y if self.gelu is None else self.gelu(y)


class Int8Linear(nn.Module):
    """x (…, inputs) -> (…, outputs) in bf16, with an int8 weight and a scale for each output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # The scale is rounded to bf16 before the weight is divided by it, so that both use the same scale.
        self.scale = (weight.abs().amax(dim=1) / _INT8_MAX).clamp(min=1e-30).bfloat16()
        rounded = (weight / self.scale.float()[:, None]).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
        self.padding = -linear.in_features % _INT8_VECTOR
        self.weight = F.pad(rounded, (0, self.padding))
        self.bias = _bias(linear, torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.to(torch.bfloat16), (0, self.padding)) if self.padding else x.to(torch.bfloat16)
        if x.device.type == "cpu" and x.shape[:-1].numel() < _BF16_ROWS:
            y = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale)
            y = y.view(*x.shape[:-1], -1)
        else:
            y = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return y if self.bias is None else y + self.bias


def _bias(linear: nn.Linear, dtype: torch.dtype) -> Tensor | None:
    if linear.bias is None:  # pyright: ignore[reportUnnecessaryComparison]  # torch annotates it as never None
        return None
    return linear.bias.detach().to(dtype)
