"""The hardware that an estimate is made for; it need not exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tokenloom.compute.runtime import DTYPES, Runtime, has_fast_bf16
from tokenloom.errors import UsageError

# What precision "auto" selects on a device that is not there: a GPU of the last years computes bf16 fast.
_PRECISION: Mapping[str, str] = {"cuda": "bf16", "mps": "fp32"}


@dataclass(frozen=True)
class Hardware:
    """The type of a device, and how it computes matrix products."""

    device: str
    """cpu, cuda or mps."""
    precision: str
    """Of matrix products: fp32, bf16 or fp16."""
    fast_bf16: bool
    """Whether products in bf16 are faster than in fp32."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of matrix products."""
        return DTYPES[self.precision]

    @property
    def muon_dtype(self) -> torch.dtype:
        """The type of Muon's products, which does not depend on `precision`."""
        return torch.bfloat16 if self.fast_bf16 else torch.float32


def hardware_of(runtime: Runtime) -> Hardware:
    """The hardware that this process computes on."""
    return Hardware(runtime.device.type, runtime.precision, has_fast_bf16(runtime.device))


def planned_hardware(device: str = "auto", precision: str = "auto") -> Hardware:
    """Hardware that need not be in this machine; "auto" is a GPU. A CPU is taken for one like that of this machine.

    Raises `UsageError` for a device or a precision that does not exist.
    """
    kind = "cuda" if device == "auto" else device.partition(":")[0]
    if kind not in (*_PRECISION, "cpu"):
        raise UsageError(f'device "{device}" is not supported. Choose auto, cpu, cuda or mps.')
    fast_bf16 = has_fast_bf16(torch.device("cpu")) if kind == "cpu" else kind == "cuda" and precision != "fp16"
    if precision == "auto":
        precision = _PRECISION.get(kind, "bf16" if fast_bf16 else "fp32")
    if precision == "fp16" and kind == "cpu":
        raise UsageError("fp16 is not supported on a CPU. Choose bf16 or fp32, or use a GPU.")
    return Hardware(kind, precision, fast_bf16)
