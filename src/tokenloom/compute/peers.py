"""The other processes of a run: which of them has ended, and why, once a collective operation has failed.

A failed operation only says that a connection was closed, often that to a neighbor which itself lost another one.
Therefore each process that ends writes the reason to the store of the group. One that wrote nothing has been killed.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import psutil

from tokenloom.compute.group_store import Store
from tokenloom.errors import DistributedError, TokenloomError

CHECK_IN_SECONDS = 10.0  # in which a process that lost a connection writes to the store; it may be writing a checkpoint
LEAVE_SECONDS = 3.0  # in which processes that end for the same reason do so
POLL_SECONDS = 0.05
LOST = ""  # written by a process that ends because it lost others


@dataclass(frozen=True)
class Peers:
    """The processes of a group, as this one reaches them through the store."""

    store: Store
    rank: int
    world_size: int

    @classmethod
    def join(cls, store: Store, rank: int, world_size: int) -> Peers:
        """Write this process's machine and number to the store."""
        store.set(f"process/{rank}", json.dumps([socket.gethostname(), os.getpid()]))
        return cls(store, rank, world_size)

    def leave(self, error: Exception) -> None:
        """Write why this process ends; sets `error.is_reported` if rank 0 ends for the same reason, or has named it."""
        if isinstance(error, DistributedError):
            return  # `lost` has written it
        try:
            self._write(_line(error))
            others = [f"left/{rank}" for rank in range(self.world_size)] if self.rank == 0 else ["left/0"]
            if not self._wait_for(others):
                return
            if self.rank > 0 and isinstance(error, TokenloomError):
                error.is_reported |= self._reason_of(0) == _line(error)
        except RuntimeError:  # the store has ended with rank 0
            return

    def lost(self, error: Exception) -> DistributedError:
        """What to raise after an operation has failed: names the process that has ended.

        `is_reported` is set in all processes but one, or if the process has printed the reason itself.
        """
        try:
            self._write(LOST)
            gone = self._wait_for_one_that_ended()
            reasons = {rank: self._reason_of(rank) for rank in range(self.world_size) if self._has_left(rank)}
        except RuntimeError:  # the store is in the process of rank 0, unless torchrun has one of its own
            return DistributedError(f"rank 0 of {self.world_size} processes has ended, or cannot be reached. {_ADVICE}")
        for rank, reason in reasons.items():
            if reason != LOST:
                lost = DistributedError(f"rank {rank} of {self.world_size} has stopped with an error: {reason}")
                lost.is_reported = True  # by that process
                return lost
        if gone:
            lost = DistributedError(f"{self._names(gone)} has ended without a message, as if it was killed. {_ADVICE}")
        else:
            reason = str(error).splitlines()[0].rstrip(".")
            lost = DistributedError(f"the {self.world_size} processes have lost their connection: {reason}. {_ADVICE}")
        lost.is_reported = min(reasons) < self.rank  # a process of a lower rank prints the same
        return lost

    def _write(self, reason: str) -> None:
        self.store.set(f"left/{self.rank}", reason)

    def _has_left(self, rank: int) -> bool:
        return self.store.check([f"left/{rank}"])

    def _reason_of(self, rank: int) -> str:
        return self.store.get(f"left/{rank}").decode("utf-8")

    def _wait_for(self, keys: list[str]) -> bool:
        """Whether all keys exist within `LEAVE_SECONDS`."""
        try:
            self.store.wait(keys, timedelta(seconds=LEAVE_SECONDS))
        except RuntimeError:
            return False
        return True

    def _wait_for_one_that_ended(self) -> list[int]:
        """The processes that have written nothing, once one of them is known to have ended, or time is up."""
        end = time.monotonic() + CHECK_IN_SECONDS
        while True:
            silent = [rank for rank in range(self.world_size) if not self._has_left(rank)]
            gone = [rank for rank in silent if self._is_gone(rank)]
            if gone or not silent or time.monotonic() > end:
                return gone or silent
            time.sleep(POLL_SECONDS)

    def _process(self, rank: int) -> tuple[str, int]:
        host, number = json.loads(self.store.get(f"process/{rank}"))
        return host, number

    def _is_gone(self, rank: int) -> bool:
        """Whether a process of this machine has ended; False if it runs on another one."""
        host, number = self._process(rank)
        if host != socket.gethostname():
            return False
        try:
            return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def _names(self, ranks: Sequence[int]) -> str:
        names = [f"rank {rank} (process {self._process(rank)[1]} on {self._process(rank)[0]})" for rank in ranks[:4]]
        return f"{', '.join(names)}{' and others' if len(ranks) > 4 else ''} of {self.world_size}"


_ADVICE = "Training stops; the checkpoints are valid: continue with tokenloom train --resume RUN."


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
