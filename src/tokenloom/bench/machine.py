"""The machine's measured peak rates, which put the results of a benchmark in relation to the hardware."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Matrix products of a forward pass of GPT-2 124M at batch 2×256: (rows, inputs, outputs, count).
SHAPES = (
    (512, 768, 2304, 12),
    (512, 768, 768, 12),
    (512, 768, 3072, 12),
    (512, 3072, 768, 12),
    (512, 768, 50257, 1),
)


@dataclass(frozen=True)
class Machine:
    """The processor and its measured peak rates."""

    cpu: str
    cores: int | None
    threads: int
    """Threads that torch uses."""
    torch: str
    """Version of torch."""
    fp32_gflops: float
    """GFLOP/s of matrix products."""
    bf16_gflops: float
    read_gb_per_s: float
    """Memory bandwidth of sequential reads."""

    def peak_gflops(self, precision: str) -> float:
        return {"fp32": self.fp32_gflops, "bf16": self.bf16_gflops}[precision]


@dataclass(frozen=True)
class Utilization:
    """The share of a measured peak rate that an implementation reaches."""

    share: float
    peak: str
    """Which peak rate."""


def measure_machine() -> Machine:
    """Measure the peak rates; takes about six seconds."""
    return Machine(
        cpu=_processor_name(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        fp32_gflops=matmul_flops(torch.float32) / 1e9,
        bf16_gflops=matmul_flops(torch.bfloat16) / 1e9,
        read_gb_per_s=read_bandwidth() / 1e9,
    )


def matmul_flops(dtype: torch.dtype) -> float:
    """FLOP/s over the matrix products of a forward pass."""
    operations = seconds = 0.0
    for rows, inputs, outputs, count in SHAPES:
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        operations += count * 2 * rows * inputs * outputs
        seconds += count * min_seconds(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight))
    return operations / seconds


def read_bandwidth() -> float:
    """Bytes per second of a sum over 800 MB."""
    numbers = torch.ones(200_000_000)
    return 4 * len(numbers) / min_seconds(numbers.sum)


def min_seconds(function: Callable[[], object], duration: float = 0.5) -> float:
    """The shortest time of a call, out of as many calls as take about `duration` seconds."""
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < duration:
        before = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - before)
    return best


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
