"""Signals that stop a command: one line on stderr, and exit code 128 plus the number of the signal.

Imports little, because the handlers are installed before anything else is imported.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

TYPE_CHECKING = False  # not imported from typing, which takes longer than all imports above
if TYPE_CHECKING:
    from types import FrameType
    from typing import Self


class StoppedBySignal(KeyboardInterrupt):
    """A signal was received while a command was running."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def exit_on_signals() -> None:
    """From now on, a signal ends the process at once, without cleaning up."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _exit)


class StopSignals:
    """A context in which the first signal raises `StoppedBySignal`, and the second ends the process at once."""

    def __init__(self) -> None:
        self.received: StoppedBySignal | None = None
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}

    def __enter__(self) -> Self:
        for number, handler in self._previous.items():
            if handler is not signal.SIG_IGN:
                self._install(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            self._install(number, handler)

    def _install(self, number: int, handler: object) -> None:
        with suppress(ValueError):  # Python allows handlers only in the main thread
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] # as getsignal returned it

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or _is_importing(frame):
            _exit(number, frame)
        self.received = StoppedBySignal(number)
        raise self.received


def _is_importing(frame: FrameType | None) -> bool:
    """Whether the main thread is inside an import.

    Extension modules swallow an exception that is raised there, turn it into another one, or abort the process.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _exit(number: int, _: FrameType | None) -> None:
    with suppress(OSError):  # stderr is closed
        os.write(2, f"tokenloom: {StoppedBySignal(number)}\n".encode())
    os._exit(128 + number)
