"""The device, its arithmetic precision, its memory and its speed."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import psutil
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tokenloom.config import Precision
from tokenloom.errors import UsageError

# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Processor features with which bf16 matrix products outrun fp32 ones; without them oneDNN emulates and is slower.
FAST_BF16_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of its matrix products; weights stay in fp32."""

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products inside run in the runtime's precision."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked, so that a clock read afterwards tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def choose_runtime(device: str = "auto", precision: Precision | str = "auto", local_rank: int = 0) -> Runtime:
    """The runtime asked for, on the GPU number `local_rank` of this machine unless one is named.

    Raises `UsageError` for a device or precision that this machine does not have.
    """
    chosen = _choose_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", local_rank)
    if precision == "auto":
        precision = _fast_precision(chosen)
    if precision not in DTYPES:
        raise UsageError(f'there is no precision "{precision}". Choose auto, fp32, bf16 or fp16.')
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("fp16 training needs a GPU. Choose bf16 or fp32 on a CPU.")
    return Runtime(chosen, precision)


def tune_malloc() -> None:
    """Keep freed memory for the next step instead of giving it back to the system; does nothing but with glibc.

    Gradients and activations are freed and allocated anew at every step. By default each large one is a mapping of its
    own, all of whose pages have to be faulted in again: a quarter of a training step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 1 << 26)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one update.

    What an update draws depends on (seed, step, rank) alone: no generator's state needs to be saved, and a resumed
    run cannot drift from an uninterrupted one.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def compile_loss(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A model's `loss`, compiled; the model itself stays as it is, for evaluation and generation."""
    return torch.compile(loss, dynamic=False)


def recompute_activations(blocks: nn.ModuleList) -> None:
    """Make every block forget its activations and compute them again in the backward pass (arXiv:1604.06174)."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def peak_flops(runtime: Runtime, size: int = 2048, seconds: float = 0.3) -> float:
    """The device's own ceiling, measured: floating-point operations a second of a large matrix product."""
    a = torch.randn(size, size, device=runtime.device, dtype=runtime.dtype)
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        runtime.synchronize()
        before = time.perf_counter()
        torch.mm(a, a)
        runtime.synchronize()
        best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has held: on the GPU if it computes there, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 1e6  # type: ignore[attr-defined]
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def available_memory(device: torch.device) -> int:
    """Bytes that can still be allocated."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f'there is no device "{name}". Choose auto, cpu, cuda, cuda:N or mps.') from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise UsageError(f'device "{name}" is not available here. Choose auto or cpu.')
    return device


def _fast_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return "bf16" if any(features.get(feature) for feature in FAST_BF16_FEATURES) else "fp32"
    return "fp32"
