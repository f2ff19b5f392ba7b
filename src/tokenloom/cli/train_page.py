"""The page beside a training: announced before it, and kept after it where someone is at a terminal."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tokenloom.cli.output import flush_results, print_notice, print_progress
from tokenloom.cli.signals import StoppedBySignal
from tokenloom.errors import TokenloomError
from tokenloom.serving.launch import RUNS
from tokenloom.serving.page_process import PageProcess


def folder_of_runs(out: Path | None, resumed: Sequence[str]) -> Path:
    """The folder that contains the run of a training: a new one in `out`, or the one that is resumed."""
    run = next(map(Path, resumed), out)
    return RUNS if run is None else run.resolve().parent


@contextmanager
def page_beside(runs: Path | None) -> Generator[PageProcess | None]:
    """The page with the runs in a folder while the context is active; None without a folder, or if it cannot start."""
    try:
        page = None if runs is None else PageProcess(runs)
    except OSError as error:
        print_notice(f"training without the page: its process cannot be started: {error.strerror}.")
        page = None
    with page or nullcontext():
        yield page


def announce(page: PageProcess | None) -> None:
    """Print the address of the page, or why there is none: training goes on without it."""
    if page is None:
        return
    try:
        print_progress(f"Watch the run at {page.url()}")
    except TokenloomError as error:
        print_notice(f"training without the page: {error}")


def keep(page: PageProcess | None) -> None:
    """At a terminal, wait until Ctrl-C, which is no failure: the training has finished."""
    from tokenloom.compute.parallel import launched_processes

    if page is None or not sys.stderr.isatty() or launched_processes() > 1:
        return
    try:
        url = page.url()
    except TokenloomError:
        return
    flush_results()
    print_progress(f"The page stays at {url} until Ctrl-C.")
    try:
        page.wait()
    except StoppedBySignal as stop:
        if stop.exit_code != 128 + signal.SIGINT:
            raise
