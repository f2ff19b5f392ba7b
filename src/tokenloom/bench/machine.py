"""What this machine can do at best, measured in the same run as the work: the ceilings of its figures."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from typing import Any

import torch

# (rows, inputs, outputs) of the products of a 124M GPT-2's training step at batch 2×256, and how often they occur.
SHAPES = (
    (512, 768, 2304, 12),
    (512, 768, 768, 12),
    (512, 768, 3072, 12),
    (512, 3072, 768, 12),
    (512, 768, 50257, 1),
)


def ceilings() -> dict[str, Any]:
    """Flops of fp32 and bf16 matrix products of a GPT-2's shapes, and bytes a second read from memory."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "fp32_gflops": product_flops(torch.float32) / 1e9,
        "bf16_gflops": product_flops(torch.bfloat16) / 1e9,
        "read_gb_per_s": read_bandwidth() / 1e9,
    }


def product_flops(dtype: torch.dtype) -> float:
    """Floating-point operations a second over the matrix products of a forward pass, each weighted as it occurs."""
    operations = seconds = 0.0
    for rows, inputs, outputs, times in SHAPES:
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        operations += times * 2 * rows * inputs * outputs
        seconds += times * fastest(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight))
    return operations / seconds


def read_bandwidth() -> float:
    """Bytes a second of a plain sum over 800 MB."""
    numbers = torch.ones(200_000_000)
    return 4 * len(numbers) / fastest(numbers.sum)


def fastest(work: Callable[[], object], seconds: float = 0.5) -> float:
    """The least seconds of a call, repeated for about `seconds`."""
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - before)
    return best


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
