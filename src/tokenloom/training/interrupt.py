"""Stopping on a signal: the first one asks, the second one insists."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self


class StopRequest:
    """A context in which SIGINT and SIGTERM only set `requested`, once; then they do what they always did.

    So the loop can finish its step and save, and an impatient second Ctrl-C still stops at once: whatever is being
    written then is unfinished under another name, and what was there before stays whole.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal_number = signal.SIGINT
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.signal_number = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
