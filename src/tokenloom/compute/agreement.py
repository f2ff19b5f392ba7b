"""Work that succeeds in all processes, or fails in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from tokenloom.compute.parallel import World
from tokenloom.errors import TrainingError

T = TypeVar("T")


def together(world: World, work: Callable[[], T]) -> list[T]:
    """What `work` returns in each process, by rank; it must not be collective itself.

    If it raises an error in some processes, the others raise `TrainingError` with the message of the first of them,
    instead of waiting for processes that have stopped. Results are pickled, so they should be small.
    """
    if world.world_size == 1:
        return [work()]
    outcome: T | _Failure
    own_error: Exception | None = None
    try:
        outcome = work()
    except Exception as error:
        own_error, outcome = error, _Failure(str(error))
    outcomes: list[T | _Failure] = [outcome] * world.world_size
    dist.all_gather_object(outcomes, outcome)  # pyright: ignore[reportUnknownMemberType]  # torch does not annotate it
    if own_error is not None:
        raise own_error
    results: list[T] = []
    for rank, result in enumerate(outcomes):
        if isinstance(result, _Failure):
            raise TrainingError(f"process {rank} has failed: {result.message}")
        results.append(result)
    return results


class _Failure:
    """The message of an error; not the error itself, which cannot always be pickled."""

    def __init__(self, message: str) -> None:
        self.message = message
