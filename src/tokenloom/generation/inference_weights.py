"""A copy of a model for inference: matrices packed for products with few rows, in fp32, bf16 or int8.

Generating a token reads every weight once and computes little, so its speed is limited by memory bandwidth. torch's
matrix products with the usual weight layout reach a third of that bandwidth on a CPU; those with weights in the layout
of oneDNN or FBGEMM reach most of it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.compute.runtime import Runtime, has_fast_bf16
from tokenloom.errors import UsageError

M = TypeVar("M", bound=nn.Module)

Quantization = Literal["int8"]
FEW_ROWS = 4  # up to which FBGEMM's fp16 product is faster than oneDNN's in bf16
# The number of rows for which oneDNN chooses its layout. With AVX2, fp32 weights for one row are left as they are, with
# which products of two or more rows take almost twice as long, and sum in another order than those of one row.
_LAYOUT_ROWS = {torch.float32: 4}
# Weights of a matrix in fp32 up to which torch's product is as fast as oneDNN's for any number of rows: a call of
# oneDNN has a cost of about 25 µs, as much as a row of such a matrix takes.
_FEW_WEIGHTS = 1 << 18
_FP16_MAX = 65504
_INT8_MAX = 127
# torch's int8 kernel reads inputs in vectors of 16, and beyond the end of a row that is not a multiple of it.
_INT8_VECTOR = 16
# With as many rows, it is faster to convert the int8 weight for a product in this precision: torch's int8 kernel
# computes each row by itself.
_CONVERTED_ROWS = {torch.bfloat16: 8, torch.float32: 16}


def copy_for_inference(model: M, runtime: Runtime, quantize: str | None = None) -> M:
    """A copy of the model on the runtime's device with prepacked matrices; residual stream and norms stay in fp32.

    `quantize` "int8" rounds each row of a matrix to 255 levels; where FBGEMM is used, the inputs of a product too.
    `model` is not changed; norms, and all weights that need no conversion, are shared with it. Raises `UsageError` for
    any other `quantize`.
    """
    if quantize not in (None, "int8"):
        raise UsageError(f'weights cannot be quantized to "{quantize}". Choose int8, or omit it.')
    shared = [*model.parameters(), *model.buffers()]
    result = copy.deepcopy(model, {id(tensor): tensor for tensor in shared}).to(runtime.device)
    dtype = runtime.dtype if quantize is None else torch.bfloat16

    def convert(linear: nn.Linear, gelu: nn.GELU | None) -> nn.Module:
        if quantize is None:
            return PrepackedLinear(linear, dtype, gelu)
        return DynamicInt8Linear(linear) if DynamicInt8Linear.is_available(linear) else Int8Linear(linear)

    linears: list[tuple[nn.Module, str, nn.Linear, nn.GELU | None]] = []
    for parent in result.modules():
        if joinable := getattr(parent, "JOINABLE", ()):
            _join(parent, joinable)
        for (name, child), (next_name, following) in pairwise([*parent.named_children(), ("", None)]):
            if isinstance(child, nn.Linear):
                gelu = following if quantize is None and isinstance(following, nn.GELU) else None
                linears.append((parent, name, child, gelu))
                if gelu is not None:  # computed by the layer before it
                    setattr(parent, next_name, nn.Identity())
            elif isinstance(child, nn.Embedding):
                weight = child.weight.detach().to(dtype)
                embedding = nn.Embedding.from_pretrained(weight)  # pyright: ignore  # torch does not annotate it
                setattr(parent, name, embedding)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # packing uses one thread for each matrix
        packed = pool.map(convert, [linear for _, _, linear, _ in linears], [gelu for *_, gelu in linears])
        for (parent, name, _, _), layer in zip(linears, packed, strict=True):
            setattr(parent, name, layer)
    return result.eval()


def _join(parent: nn.Module, names: Sequence[str]) -> None:
    """Replace linear layers without bias that have the same input by one with the outputs of all, in this order."""
    weight = torch.cat([parent.get_submodule(name).get_parameter("weight").detach() for name in names])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    parent.joined = joined
    for name in names:
        delattr(parent, name)


class PrepackedLinear(nn.Module):
    """x (…, inputs) -> (…, outputs) in `dtype`, with a weight in oneDNN's layout where the CPU supports it.

    Matrices with few weights keep their layout in fp32, and share their memory with the original.

    With a `dtype` of 16 bits on a CPU with FBGEMM, products of up to `FEW_ROWS` rows use a second copy
    of the weight, in fp16, and give fp32. They take two thirds of the time, and are more exact: fp16 has three more
    bits of precision than bf16. With `gelu`, the result is that of the GELU after the layer.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: nn.GELU | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self.gelu = gelu
        weight = linear.weight.detach()
        self.weight, self.bias = weight.to(dtype), _bias(linear, dtype)
        on_cpu = weight.device.type == "cpu"
        is_small = dtype == torch.float32 and weight.numel() <= _FEW_WEIGHTS
        self.prepacked = on_cpu and not is_small and _has_onednn(dtype)
        if self.prepacked:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, _LAYOUT_ROWS.get(dtype, 1))
        self.fp16 = None
        if on_cpu and dtype.itemsize == 2 and _has_fbgemm() and weight.abs().amax() <= _FP16_MAX:
            self.fp16 = torch.ops.quantized.linear_prepack_fp16(weight.float(), _bias(linear, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        if self.fp16 is not None and x.shape[:-1].numel() <= FEW_ROWS:
            y = torch.ops.quantized.linear_dynamic_fp16(x.float(), self.fp16)
            return y if self.gelu is None else self.gelu(y)
        x = x.to(self.dtype)
        if self.prepacked:
            unary, approximation = ("none", "") if self.gelu is None else ("gelu", self.gelu.approximate)
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, unary, [], approximation)
        y = F.linear(x, self.weight, self.bias)
        return y if self.gelu is None else self.gelu(y)


class DynamicInt8Linear(nn.Module):
    """x (…, inputs) -> (…, outputs) in fp32, with an int8 weight and inputs that FBGEMM rounds to 8 bits.

    Each row of x is rounded with a scale of its own. Rows with NaN give NaN.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = round_to_int8(linear.weight.detach())
        with warnings.catch_warnings():  # quantized tensors are deprecated, but nothing else can be packed
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
            zeros = torch.zeros(len(scale), dtype=torch.long)
            quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)  # pyright: ignore  # not exported
        self.packed = torch.ops.quantized.linear_prepack(quantized, None)
        self.bias = _bias(linear, torch.float32)
        self.outputs = linear.out_features

    @staticmethod
    def is_available(linear: nn.Linear) -> bool:
        """Whether the CPU multiplies 8-bit integers without saturation, which VNNI instructions do."""
        return linear.weight.device.type == "cpu" and _has_fbgemm() and torch.cpu._is_vnni_supported()  # pyright: ignore  # not exported

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        scale = None
        if x.shape[:-1].numel() > 1:  # FBGEMM has one scale for all rows
            scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
            x = (x / scale).nan_to_num()
        try:
            y = torch.ops.quantized.linear_dynamic(x, self.packed, False)
        except RuntimeError:  # it cannot round NaN
            if not x.isnan().any():
                raise
            y = x.new_full((*x.shape[:-1], self.outputs), torch.nan)
        if scale is not None:
            y = y * scale
        return y if self.bias is None else y + self.bias


class Int8Linear(nn.Module):
    """x (…, inputs) -> (…, outputs) in bf16, with an int8 weight and a scale for each output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        rounded, self.scale = round_to_int8(linear.weight.detach())
        self.padding = -linear.in_features % _INT8_VECTOR
        self.weight = F.pad(rounded, (0, self.padding))
        self.bias = _bias(linear, torch.bfloat16)
        self.converted = torch.bfloat16 if has_fast_bf16(self.weight.device) else torch.float32

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, self.padding)) if self.padding else x
        if x.device.type == "cpu" and x.shape[:-1].numel() < _CONVERTED_ROWS[self.converted]:
            y = torch.ops.aten._weight_int8pack_mm(x.to(torch.bfloat16).flatten(0, -2), self.weight, self.scale)
            y = y.view(*x.shape[:-1], -1)
        else:
            y = F.linear(x.to(self.converted), self.weight.to(self.converted)) * self.scale
            y = y.to(torch.bfloat16)
        return y if self.bias is None else y + self.bias


def round_to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (outputs, inputs) rounded to int8, and the scale of each output in bf16."""
    weight = weight.float()
    # The scale is rounded to bf16 before the weight is divided by it, so that both use the same scale.
    scale = (weight.abs().amax(dim=1) / _INT8_MAX).clamp(min=1e-30).bfloat16()
    rounded = (weight / scale.float()[:, None]).round_().clamp_(-_INT8_MAX, _INT8_MAX)
    return rounded.to(torch.int8), scale


def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of `dtype` on this CPU: in bf16 it needs AVX-512 or newer instructions."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines and torch.backends.quantized.engine in (
        "fbgemm",
        "x86",
    )


def _bias(linear: nn.Linear, dtype: torch.dtype) -> Tensor | None:
    if linear.bias is None:  # pyright: ignore[reportUnnecessaryComparison]  # torch annotates it as never None
        return None
    return linear.bias.detach().to(dtype)
