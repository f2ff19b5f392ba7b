"""A model made ready to write: its matrices laid out for products with few rows, in fp32, bf16 or int8.

Making a token reads every weight once and computes little, so that memory sets the pace. torch's matrix products in
their usual layout reach a third of it; oneDNN's own layout, in which a matrix is packed once, reaches most of it.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.compute.runtime import Runtime
from tokenloom.errors import UsageError
from tokenloom.model import Model

Quantization = Literal["int8"]
_INT8_MAX = 127


def for_decoding(model: Model, runtime: Runtime, quantize: str | None = None) -> Model:
    """A copy of the model on the runtime's device with packed matrices; the stream and the norms stay in fp32.

    `quantize` "int8" rounds each row of a matrix to 255 steps (weights only). Gains, biases and everything that is not
    rounded are shared with `model`, which stays as it is. Raises `UsageError` for another `quantize`.
    """
    if quantize not in (None, "int8"):
        raise UsageError(f'weights cannot be quantized to "{quantize}". Choose int8, or leave it out.')
    tensors = [*model.parameters(), *model.buffers()]
    ready = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).to(runtime.device)
    dtype = runtime.dtype if quantize is None else torch.bfloat16
    for parent in ready.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child) if quantize else PackedLinear(child, dtype))
            elif isinstance(child, nn.Embedding):
                setattr(parent, name, nn.Embedding.from_pretrained(child.weight.detach().to(dtype)))
    return ready.eval()


class PackedLinear(nn.Module):
    """x (…, inputs) -> (…, outputs) in `dtype`, the weight packed by oneDNN where it can be."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = linear.weight.detach().to(dtype)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.packed = self.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, "none", [], "")
        return F.linear(x.to(self.dtype), self.weight, self.bias)


class Int8Linear(nn.Module):
    """x (…, inputs) -> (…, outputs) in bf16, the weight in int8 with a scale for each output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        # Rounded to bf16 first, so that the steps are multiples of the very scale that is used.
        self.scale = (weight.abs().amax(dim=1) / _INT8_MAX).clamp(min=1e-30).bfloat16()
        self.weight = (weight / self.scale.float()[:, None]).round().clamp(-_INT8_MAX, _INT8_MAX).to(torch.int8)
        self.bias = None if linear.bias is None else linear.bias.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16)
        if x.device.type == "cpu":
            y = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale)
            y = y.view(*x.shape[:-1], -1)
        else:
            y = F.linear(x, self.weight.to(x.dtype)) * self.scale
        return y if self.bias is None else y + self.bias
