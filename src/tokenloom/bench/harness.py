"""Contenders that take turns: a machine that slows down on the way slows all of them.

Each contender runs in a fresh process, A B C A B C …, prints its figures as one JSON object, and is measured from
outside: wall-clock and the most memory it held. Reported is the median of the rounds, with the least and the greatest.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """One way to do the work: `python -m tokenloom.bench.<work> <name> <options as JSON>`."""

    name: str
    needs: tuple[str, ...] = ()
    """Packages that a peer comes in; without them it is left out, and said."""
    options: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] | None = None
    """What to run instead, for work that is a command; it need not print anything."""

    @property
    def missing(self) -> list[str]:
        return [package for package in self.needs if importlib.util.find_spec(package) is None]


@dataclass
class Outcome:
    """The rounds of one contender: figures by name, each a list."""

    name: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None

    def median(self, figure: str) -> float | None:
        values = self.values(figure)
        return statistics.median(values) if values else None

    def values(self, figure: str) -> list[float]:
        return [one[figure] for one in self.rounds if one.get(figure) is not None]


def run_in_turn(
    work: str, contenders: Sequence[Contender], options: Mapping[str, Any], rounds: int, say: Say
) -> list[Outcome]:
    """Every contender once a round; one that fails is told and takes no further part."""
    outcomes = [Outcome(contender.name) for contender in contenders]
    for number in range(rounds):
        for contender, outcome in zip(contenders, outcomes, strict=True):
            if contender.missing:
                outcome.problem = f"not installed: {', '.join(contender.missing)}"
            if outcome.problem:
                continue
            say(f"round {number + 1} of {rounds}: {contender.name}")
            try:
                outcome.rounds.append(_run(work, contender, options))
            except RuntimeError as error:
                outcome.problem = str(error)
    return outcomes


def _run(work: str, contender: Contender, options: Mapping[str, Any]) -> dict[str, Any]:
    settings = json.dumps({**options, **contender.options})
    command = contender.command or (sys.executable, "-m", f"tokenloom.bench.{work}", contender.name, settings)
    with tempfile.TemporaryFile() as errors:
        before = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        with _MemoryWatch(process.pid) as watch:
            printed = process.communicate()[0].decode()
        seconds = time.perf_counter() - before
        if process.returncode:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise RuntimeError(f"failed with {process.returncode}: {last[0][:200]}")
    figures = json.loads(printed.strip().splitlines()[-1]) if contender.command is None else {}
    return {"wall_seconds": seconds, "peak_mb": watch.most / 1e6, **figures}


class _MemoryWatch:
    """The most memory that a process and its children have held together, looked at every 20 ms."""

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            with contextlib.suppress(psutil.Error):
                family = [self._process, *self._process.children(recursive=True)]
                self.most = max(self.most, sum(member.memory_info().rss for member in family))


def table(outcomes: Sequence[Outcome], figure: str, *, less_is_better: bool = False) -> list[str]:
    """Medians with their spread, and each as a multiple of the first contender's."""
    first = next((outcome.median(figure) for outcome in outcomes if outcome.rounds), None)
    lines = [f"{'':26} {figure:>14} {'least - most':>20} {'ratio':>7} {'peak MB':>9}"]
    for outcome in outcomes:
        value, peak = outcome.median(figure), outcome.median("peak_mb")
        if value is None or peak is None or not first:
            lines.append(f"{outcome.name:26} {outcome.problem or 'no figure'}")
            continue
        spread = f"{min(outcome.values(figure)):,.3g} - {max(outcome.values(figure)):,.3g}"
        ratio = first / value if less_is_better else value / first
        lines.append(f"{outcome.name:26} {value:>14,.4g} {spread:>20} {ratio:>7.2f} {peak:>9,.0f}")
    return lines


def answer(contenders: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """What a contender's process does: run the function of its name with its options, and print what it gives."""
    name, settings = sys.argv[1:]
    sys.stdout.write(json.dumps(contenders[name](**json.loads(settings))) + "\n")
