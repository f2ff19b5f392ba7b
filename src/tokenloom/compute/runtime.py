"""The device that a model runs on: its precision, memory and speed."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psutil
import torch

from tokenloom.compute.cgroups import available_in_cgroups
from tokenloom.config import Precision
from tokenloom.errors import UsageError

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# CPU features with hardware bf16 matrix products. Without them oneDNN emulates bf16, which is slower than fp32.
FAST_BF16_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of its matrix products; weights are kept in fp32."""

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which matrix products run in the runtime's precision."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def synchronize(self) -> None:
        """Wait for all queued kernels, so that elapsed time can be measured."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are faster on the device than in fp32, instead of several times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(feature) for feature in FAST_BF16_FEATURES)
    return False


def choose_runtime(device: str = "auto", precision: Precision | str = "auto", local_rank: int = 0) -> Runtime:
    """The requested runtime; `local_rank` is the index of the GPU if `device` does not give one.

    Raises `UsageError` for a device or precision that is not supported on this machine.
    """
    resolved = _resolve_device(device)
    if resolved == torch.device("cuda"):  # without an index
        resolved = torch.device("cuda", local_rank)
    if precision == "auto":
        precision = _fast_precision(resolved)
    if precision not in DTYPES:
        raise UsageError(f'precision "{precision}" is not supported. Choose auto, fp32, bf16 or fp16.')
    if precision == "fp16" and resolved.type == "cpu":
        raise UsageError("fp16 is not supported on a CPU. Choose bf16 or fp32, or use a GPU.")
    return Runtime(resolved, precision)


def tune_malloc() -> None:
    """Make glibc's malloc keep freed memory instead of returning it to the system; no effect with other C libraries.

    Gradients and activations are freed and allocated again in every step. By default glibc gets each large block from
    `mmap` and returns it with `munmap`, so that all its pages are faulted in again: a quarter of a training step on a
    CPU.
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
    """Seed torch's global generators for one training step.

    The random numbers of a step depend only on (seed, step, rank). Therefore no generator state has to be saved, and a
    resumed run gets the same numbers as an uninterrupted one.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # pyright: ignore  # torch does not annotate it


def peak_flops(runtime: Runtime, size: int = 2048, seconds: float = 0.3) -> float:
    """Peak FLOP/s of the device, measured: the fastest of repeated matrix products of up to `size` × `size`.

    They grow to that size as long as one takes a small part of the time: bf16 that a CPU emulates is very slow.
    """
    n, best = min(256, size), 0.0
    a = torch.randn(n, n, device=runtime.device, dtype=runtime.dtype)
    torch.mm(a, a)  # loads the library
    started = time.perf_counter()
    while not best or time.perf_counter() - started < seconds:
        runtime.synchronize()
        before = time.perf_counter()
        torch.mm(a, a)
        runtime.synchronize()
        elapsed = time.perf_counter() - before
        best = max(best, 2 * n**3 / elapsed)
        if n < size and 8 * elapsed < seconds:
            n = min(2 * n, size)
            a = torch.randn(n, n, device=runtime.device, dtype=runtime.dtype)
    return best


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process in MB: allocated on the GPU for a CUDA device, else resident set size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset / 1e6  # type: ignore[attr-defined]  # only on Windows
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def available_memory(device: torch.device) -> int:
    """Bytes of free memory on the device; on a CPU at most what the limits of its control groups leave."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = (psutil.virtual_memory().available, available_in_cgroups())
    return min(limit for limit in limits if limit is not None)


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f'device "{name}" is not supported. Choose auto, cpu, cuda, cuda:N or mps.') from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise UsageError(f'device "{name}" is not available on this machine. Choose auto or cpu.')
    return device


def _fast_precision(device: torch.device) -> str:
    if has_fast_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"
