"""What the results of a training step depend on besides configuration, data and weights: hardware, torch, processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch

from tokenloom.compute.parallel import World
from tokenloom.compute.runtime import Runtime

LABELS: Mapping[str, str] = {
    "device": "device",
    "precision": "precision",
    "threads": "number of threads",
    "processes": "number of processes",
    "torch": "torch version",
    "cpu": "CPU capability",
}


@dataclass(frozen=True)
class Environment:
    """Equal environments give the same bits; a checkpoint records the one that it was trained in."""

    device: str
    """Type, and the name of a GPU: its index does not matter."""
    precision: str
    threads: int | None
    """Sums are split among the threads of a CPU; None for other devices."""
    processes: int
    torch: str
    cpu: str | None
    """The vector instructions that torch uses; None for other devices."""

    @classmethod
    def of(cls, runtime: Runtime, world: World) -> Self:
        device, on_cpu = runtime.device, runtime.device.type == "cpu"
        return cls(
            device=f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type,
            precision=runtime.precision,
            threads=torch.get_num_threads() if on_cpu else None,
            processes=world.world_size,
            torch=torch.__version__,
            cpu=torch.backends.cpu.get_cpu_capability() if on_cpu else None,
        )

    def changes_since(self, saved: Mapping[str, object]) -> Iterator[str]:
        """One phrase for each difference from a saved environment; what it did not record is left out."""
        for field in fields(self):
            before, now = saved.get(field.name), getattr(self, field.name)
            if before is not None and now is not None and before != now:
                yield f"the {LABELS[field.name]} was {before}, now it is {now}"
