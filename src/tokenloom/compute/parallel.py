"""The processes of a distributed run: the only module that calls torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The default process group as this process sees it; without torchrun, rank 0 of 1.

    All methods are collective: every process has to call them in the same order.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and terminal output."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)  # pyright: ignore[reportUnknownMemberType]  # torch does not annotate it
        return values

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of all processes. Each divides its loss by the token count of the whole step."""
        if self.world_size > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)  # pyright: ignore  # torch does not annotate it

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process. The value is pickled, so it should be small."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Block until every process has reached this point."""
        if self.world_size > 1:
            dist.barrier()  # pyright: ignore[reportUnknownMemberType]  # torch does not annotate it


def launched_processes() -> int:
    """The number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """The rank that torchrun gave this process; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def init_process_group() -> World:
    """Join the process group that torchrun set up; without torchrun, a world of one process."""
    if launched_processes() == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def destroy_process_group() -> None:
    """Leave the process group; does nothing without one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
