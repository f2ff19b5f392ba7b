"""The key-value store through which processes find each other: what identifies a group, and a torchrun command.

torchrun keeps its store when it restarts processes, with all that earlier ones have written. The number of restarts
that it passes to a process does not tell their groups apart, because each machine counts its own
(pytorch/pytorch#108158).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

POLL_SECONDS = 0.02


class Store(Protocol):
    """The part of torch's stores that is used."""

    def set(self, key: str, value: str) -> object: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...
    def wait(self, keys: list[str], timeout: timedelta) -> object: ...
    def compare_set(self, key: str, expected_value: str, desired_value: str) -> bytes: ...


def new_group(store: Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """A name for the group of the processes that call this: the same in all of them, and never used before.

    Each process writes a token, and rank 0 answers to it with the name. A process that was restarted has another token,
    so it reads no answer to an earlier one. Raises `RuntimeError` if some process does not call this in time.
    """
    if rank > 0:
        token = uuid.uuid4().hex
        store.set(f"token/{rank}", token)
        store.wait([f"group/{token}"], timeout)
        group = store.get(f"group/{token}").decode("utf-8")
        store.set(f"joined/{group}/{rank}", "")
        return group
    group, missing = uuid.uuid4().hex, list(range(1, world_size))
    end = time.monotonic() + timeout.total_seconds()
    while missing := _not_joined(store, group, missing):
        for other in missing:
            if store.check([f"token/{other}"]):  # possibly that of an earlier process, which no one reads
                store.set(f"group/{store.get(f'token/{other}').decode('utf-8')}", group)
        if time.monotonic() > end:
            raise RuntimeError(f"rank {missing[0]} has not started within {timeout.total_seconds():.0f} seconds")
        time.sleep(POLL_SECONDS)
    return group


def launch_name(store: Store) -> str:
    """A name for the torchrun command whose store this is, the same after each restart of its processes."""
    return store.compare_set("launch", "", uuid.uuid4().hex).decode("utf-8")


def _not_joined(store: Store, group: str, ranks: Sequence[int]) -> list[int]:
    return [rank for rank in ranks if not store.check([f"joined/{group}/{rank}"])]
