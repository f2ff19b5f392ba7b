"""Stopping on SIGINT, SIGTERM and SIGHUP: the first signal requests a stop, the second one stops immediately."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from tokenloom.compute.parallel import World

SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__
)  # SIGHUP does not exist on Windows

_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class StopRequest:
    """A context in which the first of `SIGNALS` only sets `requested`, and restores the previous handlers.

    The loop can then finish its step and save a checkpoint. A second signal stops the process immediately; files that
    are being written at that moment keep their old content, because all writes are atomic.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_number = signal.SIGINT
        self._previous: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def votes(self) -> list[float]:
        """For each of `SIGNALS`, 1 if it was received; their sums over all processes tell `received_in` what to do."""
        return [float(self.requested and self.signal_number == number) for number in SIGNALS]

    def agreed(self, world: World) -> signal.Signals | None:
        """The signal that any of the processes has received; the same in all of them, which have to call this."""
        return received_in(world.sum(self.votes()))

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.signal_number = signal.Signals(number)
        self._restore()
        _discard_output_to_closed_terminal()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def received_in(votes: Sequence[float]) -> signal.Signals | None:
    """The signal that any process has received, given the sums of their votes; None if there is none."""
    return next((number for number, count in zip(SIGNALS, votes, strict=True) if count > 0), None)


def _discard_output_to_closed_terminal() -> None:
    """Redirect stdout and stderr to the null device if they are a terminal that was closed.

    Writing to it raises `OSError`, which would end training before the checkpoint is saved.
    """
    for descriptor in (1, 2):
        with suppress(OSError):  # the descriptor itself may be closed
            # A closed terminal is a device still, but no longer a terminal.
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)
