"""How the processes of a run share the training of a model: ddp or fsdp, applied from outside the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import nn

from tokenloom.compute.parallel import World
from tokenloom.compute.replicas import Replicas
from tokenloom.compute.shards import Shards
from tokenloom.config import Strategy
from tokenloom.errors import UsageError

ONE_PROCESS = (
    "--strategy fsdp needs several processes. Start them with torchrun, or use --strategy auto, with which one process "
    "has the whole model."
)


class Parallelism(Protocol):
    """A model that several processes train."""

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        """A context for the forward and backward pass of one micro-batch.

        After the last one of a step, the gradient of each parameter is the sum over all processes and micro-batches.
        """
        ...


class OneProcess:
    """A model that one process trains."""

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext()


def parallelize(
    model: nn.Module, world: World, strategy: Strategy, device: torch.device | None = None, replicas: int = 1
) -> Parallelism:
    """Share the training of a model among the processes, on `device`; to be called before its optimizer is created.

    The weights are those of rank 0. With fsdp, so many `replicas` of the model are divided among the processes. Raises
    `UsageError` for a strategy that one process cannot have.
    """
    device = device or next(model.parameters()).device
    if world.world_size > 1:
        return STRATEGIES[strategy](model, world, device, replicas)
    if strategy == "fsdp":
        raise UsageError(ONE_PROCESS)
    model.to(device)
    return OneProcess()


def _whole_models(model: nn.Module, world: World, device: torch.device, _: int) -> Parallelism:
    return Replicas(model.to(device), world)


class _Constructor(Protocol):
    def __call__(self, model: nn.Module, world: World, device: torch.device, replicas: int, /) -> Parallelism: ...


STRATEGIES: Mapping[Strategy, _Constructor] = {"auto": _whole_models, "ddp": _whole_models, "fsdp": Shards}
