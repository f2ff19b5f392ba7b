"""Progress of long-running work on the terminal: bytes of text prepared or downloaded, windows evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from tokenloom.reporting.formatting import clock_time, compact, visible
from tokenloom.reporting.terminal import can_draw, encodable, stderr_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn, Task, TaskID

LINE_INTERVAL = 5.0  # seconds between plain lines
WINDOW_DELAY = 1.0  # seconds; a shorter evaluation shows no progress


@contextmanager
def byte_progress(console: Console | None = None) -> Generator[Callable[[str, int, int | None], None]]:
    """Progress in bytes: `with byte_progress() as progress: progress("book.txt", done, total)`.

    `total` is None if it is unknown.
    """
    with ProgressDisplay(BYTES, console) as display:
        yield display


@contextmanager
def window_progress(description: str, *, quiet: bool = False) -> Generator[Callable[[int, int], None]]:
    """Progress in windows: `with window_progress("evaluating") as progress: progress(done, total)`.

    Silent if `quiet`, or if the work takes less than a second.
    """
    if quiet:
        yield _ignore
        return
    with ProgressDisplay(WINDOWS) as display:
        yield partial(display, description)


@dataclass(frozen=True)
class ProgressUnit:
    """What is counted, and how it is shown."""

    figures: Callable[[Task], str]
    """A task's amounts, rate and time left."""
    columns: Callable[[], list[ProgressColumn]]
    """The columns of a bar after its description."""
    delay: float = 0.0
    """Seconds before a bar appears."""


class ProgressDisplay:
    """The progress of one or more tasks, called as `progress(description, done, total)`.

    A bar for each task on a terminal, which disappears at the end; elsewhere a plain line every few seconds.
    """

    def __init__(
        self, unit: ProgressUnit, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.progress import Progress, TextColumn

        self.console = console or stderr_console()
        self._unit = unit
        self._clock = clock
        self._can_draw = can_draw(self.console)
        # Also keeps the rate and the time left of each task, for plain lines as for bars.
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            *unit.columns(),
            console=self.console,
            transient=True,
            expand=True,
            redirect_stdout=False,  # with --json stdout carries the result
            get_time=clock,
        )
        self._tasks: dict[str, TaskID] = {}
        self._is_started = False
        self._start = self._last_line = clock()

    def __enter__(self) -> Self:
        self._start = self._last_line = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_started:
            self._progress.stop()

    def __call__(self, description: str, done: int, total: int | None) -> None:
        if description not in self._tasks:
            self._tasks[description] = self._progress.add_task(visible(description), total=total)
        task = self._tasks[description]
        self._progress.update(task, completed=done, total=total)
        now = self._clock()
        if self._can_draw:
            if not self._is_started and now - self._start >= self._unit.delay and done != total:
                self._progress.start()
                self._is_started = True
        elif now - self._last_line >= LINE_INTERVAL:
            self._last_line = now
            figures = self._unit.figures(self._progress.tasks[task])
            line = encodable(visible(f"{description}: {figures}"), self.console.encoding)
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def _byte_figures(task: Task) -> str:
    done = f"{task.completed / 1e6:,.1f}"
    parts = [f"{done} of {task.total / 1e6:,.1f} MB" if task.total else f"{done} MB"]
    if task.speed:
        parts.append(f"{task.speed / 1e6:,.1f} MB/s")
    return ", ".join(parts + _time_left(task))


def _window_figures(task: Task) -> str:
    parts = [f"{task.completed:,} of {task.total:,} windows"]
    if task.speed:
        parts.append(f"{compact(task.speed)} windows/s")
    return ", ".join(parts + _time_left(task))


def _time_left(task: Task) -> list[str]:
    return [f"{clock_time(task.time_remaining)} left"] if task.time_remaining is not None else []


def _byte_columns() -> list[ProgressColumn]:
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    return [BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]


def _window_columns() -> list[ProgressColumn]:
    from rich.progress import BarColumn, ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class FiguresColumn(ProgressColumn):
        """Rich has no column for a rate in units of its own."""

        def render(self, task: Task) -> Text:
            return Text(_window_figures(task))

    return [BarColumn(bar_width=None), FiguresColumn(table_column=Column(no_wrap=True))]


def _ignore(done: int, total: int) -> None:
    return


BYTES = ProgressUnit(_byte_figures, _byte_columns)
WINDOWS = ProgressUnit(_window_figures, _window_columns, delay=WINDOW_DELAY)
