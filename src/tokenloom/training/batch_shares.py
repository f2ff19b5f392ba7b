"""How the processes of a run divide the batch of a step, and batch sizes that they can divide."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenloom.config import TrainConfig
from tokenloom.errors import TrainingError


@dataclass(frozen=True)
class BatchShares:
    """The batch of a step, as every process gets it."""

    size: int
    """Sequences of a step, over all processes."""
    processes: int
    per_process: int
    """Sequences of a step in each process."""
    micro_batch: int
    """Sequences of a forward pass, at most."""
    multiple_of: int
    """Other batch sizes are multiples of this number, as long as the micro-batch does not change."""

    @property
    def accumulation(self) -> int:
        """Forward and backward passes of a step in each process."""
        return -(-self.per_process // self.micro_batch)

    def nearest(self, count: int) -> list[int]:
        """The batch size, and the `count - 1` next larger ones that the processes can divide."""
        first = -(-self.size // self.multiple_of) * self.multiple_of
        return [first + number * self.multiple_of for number in range(count)]


def batch_shares(train: TrainConfig, processes: int, windows: int | None = None) -> BatchShares:
    """The shares of `train.batch_size`; raises `TrainingError` if it cannot be divided.

    The error names sizes that can, of at most so many `windows` of text.
    """
    size, unit = train.batch_size, batch_unit(train, processes)
    if size % processes:
        raise TrainingError(
            f"train.batch_size {size} is not a multiple of the {processes} processes. Use "
            f"{_fitting_sizes(size, unit, windows)}{_fitting_processes(size, processes)}."
        )
    return BatchShares(size, processes, size // processes, micro_batch_size(train, processes), unit)


def batch_unit(train: TrainConfig, processes: int) -> int:
    """Batch sizes that `processes` can divide, and the micro-batch as well, are multiples of it."""
    return math.lcm(processes, train.micro_batch_size or 1)


def micro_batch_size(train: TrainConfig, processes: int) -> int:
    """Sequences of a forward pass in each process, at most."""
    per_process = train.batch_size // processes
    return min(per_process, train.micro_batch_size or per_process)


def _fitting_sizes(size: int, unit: int, most: int | None) -> str:
    """The flag with the multiples of `unit` next to `size`, of at most `most`; empty if there are none."""
    lower = size // unit * unit
    sizes = [str(fitting) for fitting in (lower, lower + unit) if fitting > 0 and (most is None or fitting <= most)]
    return f"--train.batch-size {' or '.join(sizes)}, or " if sizes else ""


def _fitting_processes(size: int, most: int) -> str:
    """The largest numbers of processes below `most` that can divide the batch."""
    counts = [count for count in range(1, most) if size % count == 0][-2:]
    return f"{' or '.join(map(str, counts))} {'process' if counts == [1] else 'processes'}"
