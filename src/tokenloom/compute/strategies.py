"""How the processes of a run share the training of a model: ddp or fsdp, applied from outside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import nn

from tokenloom.compute.parallel import World
from tokenloom.compute.replicas import Replicas
from tokenloom.config import Strategy
from tokenloom.errors import UsageError


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


def parallelize(model: nn.Module, world: World, strategy: Strategy) -> Parallelism:
    """Share the training of a model among the processes; to be called before its optimizer is created.

    Raises `UsageError` for a strategy that is not supported.
    """
    if world.world_size == 1 and strategy != "fsdp":
        return OneProcess()
    return STRATEGIES[strategy](model, world)


def _refuse_fsdp(model: nn.Module, world: World) -> Parallelism:
    raise UsageError("--strategy fsdp is not supported yet. Use --strategy ddp, with a model that fits each process.")


STRATEGIES: Mapping[Strategy, Callable[[nn.Module, World], Parallelism]] = {
    "auto": Replicas,
    "ddp": Replicas,
    "fsdp": _refuse_fsdp,
}
