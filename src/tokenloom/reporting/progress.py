"""How far work has come: bytes of a text that is prepared, windows of one that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

from tokenloom.reporting.messages import clock_time, compact, visible
from tokenloom.reporting.terminal import can_draw, encodable, stderr_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

SECONDS_BETWEEN_PLAIN_LINES = 5.0
SECONDS_BEFORE_A_BAR = 1.0  # whatever takes less needs none


def progress_bar(console: Console | None = None) -> PreparationProgress:
    """Progress for preparing data: `with progress_bar() as progress: progress("book.txt", done, total)`, in bytes."""
    return PreparationProgress(console)


def progress_counter(what: str, quiet: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    """Progress for measuring: `with progress_counter("evaluating", quiet) as progress: progress(done, total)`.

    In windows; silent if `quiet`, and where the work takes less than a second.
    """
    return nullcontext(_say_nothing) if quiet else WindowProgress(what)


class PreparationProgress:
    """Progress through bytes of text, called as `progress(what, done, total)`; `total` None where it is unknown.

    A bar with rate and time left in MB on a terminal; elsewhere a plain line every few seconds.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or stderr_console()
        self._clock = clock
        self._bars: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._last_line = clock()

    def __enter__(self) -> Self:
        if can_draw(self.console):
            self._bars = _byte_bars(self.console)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            bars.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(visible(what), total=total)
            self._bars.update(self._tasks[what], completed=done, total=total)
            return
        now = self._clock()
        self._began.setdefault(what, (now, done))
        if now - self._last_line >= SECONDS_BETWEEN_PLAIN_LINES:
            self._last_line = now
            self.console.print(self._line(what, done, total, now), soft_wrap=True, highlight=False, markup=False)

    def _line(self, what: str, done: int, total: int | None, now: float) -> str:
        began, first = self._began[what]
        rate = (done - first) / (now - began) if now > began else 0.0
        parts = [f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB" if total else f"{done / 1e6:,.1f} MB"]
        if rate > 0:
            parts.append(f"{rate / 1e6:,.1f} MB/s")
            parts += [f"{clock_time(max(0, total - done) / rate)} left"] if total else []
        return encodable(visible(f"{what}: {', '.join(parts)}"), self.console.encoding)


class WindowProgress:
    """Progress through windows of tokens, called as `progress(done, total)`, with their rate and the time left.

    A bar on a terminal if the work takes longer than a second; elsewhere a plain line every few seconds.
    """

    def __init__(
        self, what: str, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console or stderr_console()
        self._what = visible(what)
        self._clock = clock
        self._bar: Progress | None = None
        self._began = self._last_line = clock()

    def __enter__(self) -> Self:
        self._began = self._last_line = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        figures = _window_figures(done, total, now - self._began)
        if can_draw(self.console):
            # The bar goes with the last window, so that one needs no drawing.
            if done < total and now - self._began >= SECONDS_BEFORE_A_BAR:
                self._draw(done, total, figures)
        elif now - self._last_line >= SECONDS_BETWEEN_PLAIN_LINES:
            self._last_line = now
            line = encodable(f"{self._what}: {figures}", self.console.encoding)
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _draw(self, done: int, total: int, figures: str) -> None:
        if self._bar is None:
            self._bar = _window_bar(self.console)
            self._bar.add_task(self._what, total=total, completed=done, figures=figures)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, figures=figures)


def _say_nothing(done: int, total: int) -> None:
    return


def _window_figures(done: int, total: int, seconds: float) -> str:
    parts = [f"{done:,} of {total:,} windows"]
    if done and seconds > 0:
        rate = done / seconds
        parts += [f"{compact(rate)} windows/s", f"{clock_time(max(0, total - done) / rate)} left"]
    return ", ".join(parts)


def _window_bar(console: Console) -> Progress:
    from rich.progress import BarColumn, TextColumn

    return _bars(console, BarColumn(bar_width=None), TextColumn("{task.fields[figures]}", markup=False))


def _byte_bars(console: Console) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    return _bars(console, BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


def _bars(console: Console, *columns: ProgressColumn) -> Progress:
    """Bars that are gone when the work is done, behind the name of what they count."""
    from rich.progress import Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        *columns,
        console=console,
        transient=True,
        expand=True,
        redirect_stdout=False,  # with --json stdout carries the result
    )
