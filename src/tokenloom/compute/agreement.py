"""Work that succeeds in all processes, or fails in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch.distributed as dist

from tokenloom.compute.parallel import World
from tokenloom.errors import DistributedError, TokenloomError

T = TypeVar("T")


def together(world: World, work: Callable[[], T]) -> list[T]:
    """What `work` returns in each process, by rank; it must not be collective itself.

    If it raises an error in some processes, the others raise that of the first of them, instead of waiting for
    processes that have stopped. Results are pickled, so they should be small.
    """
    if world.world_size == 1:
        return [work()]
    result: T | None = None
    own_error: Exception | None = None
    try:
        result = work()
    except Exception as error:
        own_error = error
    outcomes: list[tuple[TokenloomError | None, T | None]] = [(None, None)] * world.world_size
    with world.errors_named():
        dist.all_gather_object(outcomes, (_shared(own_error, world), result))  # pyright: ignore  # not annotated
    if own_error is not None:
        raise own_error
    for error, _ in outcomes:
        if error is not None:
            error.is_reported = not world.is_main
            raise error
    return [cast(T, result) for _, result in outcomes]


def _shared(error: Exception | None, world: World) -> TokenloomError | None:
    """An error as the other processes raise it."""
    if error is None or isinstance(error, TokenloomError):
        return error
    return DistributedError(f"rank {world.rank} has stopped with an error: {error}")
