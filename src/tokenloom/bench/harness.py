"""Runs the implementations of a workload, each in its own process, and summarizes the measurements.

Repeats are interleaved (A B C A B C …), so that a change in the machine's speed affects every implementation. A process
prints its metrics as one JSON object; wall-clock time and peak memory are measured from outside. Results are the median
of the repeats, with minimum and maximum.
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

import psutil

Options = Mapping[str, str | int | float]
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Implementation:
    """One way to do a workload: `python -m tokenloom.bench.<workload> <name> <options as JSON>`."""

    name: str
    requires: tuple[str, ...] = ()
    """Packages it needs; skipped if one is not installed."""
    command: tuple[str, ...] | None = None
    """Command to run instead; its output is ignored."""

    @property
    def missing_packages(self) -> list[str]:
        return missing_packages(self.requires)


@dataclass(frozen=True)
class Measurement:
    """One repeat of one implementation."""

    wall_seconds: float
    """Time from start to exit of the process."""
    peak_mb: float
    """Peak resident memory of the process and its children."""
    metrics: Metrics = field(default_factory=dict[str, float])
    """What the process printed."""

    def to_json(self) -> Metrics:
        return {"wall_seconds": self.wall_seconds, "peak_mb": self.peak_mb, **self.metrics}


@dataclass
class Result:
    """The measurements of one implementation."""

    name: str
    repeats: list[Measurement] = field(default_factory=list[Measurement])
    problem: str | None = None
    """Why there are no more measurements: a missing package or an error."""

    def values(self, metric: str) -> list[float]:
        return [values[metric] for repeat in self.repeats if metric in (values := repeat.to_json())]

    def median(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.median(values) if values else None


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def run_interleaved(
    workload: str,
    implementations: Sequence[Implementation],
    options: Options,
    repeats: int,
    progress: Callable[[str], None],
) -> list[Result]:
    """Run every implementation `repeats` times; one that fails is not run again. `progress` gets a line per run."""
    results = [Result(implementation.name) for implementation in implementations]
    for number in range(1, repeats + 1):
        for implementation, result in zip(implementations, results, strict=True):
            if missing := implementation.missing_packages:
                result.problem = f"not installed: {', '.join(missing)}"
            if result.problem:
                continue
            progress(f"repeat {number} of {repeats}: {implementation.name}")
            try:
                result.repeats.append(_measure(workload, implementation, options))
            except RuntimeError as error:
                result.problem = str(error)
    return results


def run_task(workload: str, task: str, options: Options) -> None:
    """Run a preparatory task of a workload in its own process, which releases its memory on exit."""
    subprocess.run(_worker_command(workload, task, options), check=True, stdout=subprocess.DEVNULL)


def worker_main(tasks: Mapping[str, Callable[..., Metrics]]) -> None:
    """Entry point of a worker process: call the task named in argv with its options and print the metrics as JSON."""
    name, options = sys.argv[1:]
    sys.stdout.write(json.dumps(tasks[name](**json.loads(options))) + "\n")


def format_table(results: Sequence[Result], metric: str, *, lower_is_better: bool = False) -> list[str]:
    """Lines of a table: median and range of a metric, its ratio to the first implementation, and peak memory."""
    baseline = next((result.median(metric) for result in results if result.repeats), None)
    lines = [f"{'':26} {metric:>14} {'min - max':>20} {'ratio':>7} {'peak MB':>9}"]
    for result in results:
        value, peak = result.median(metric), result.median("peak_mb")
        if value is None or peak is None or not baseline:
            lines.append(f"{result.name:26} {result.problem or 'no result'}")
            continue
        spread = f"{min(result.values(metric)):,.3g} - {max(result.values(metric)):,.3g}"
        ratio = baseline / value if lower_is_better else value / baseline
        lines.append(f"{result.name:26} {value:>14,.4g} {spread:>20} {ratio:>7.2f} {peak:>9,.0f}")
    return lines


def _worker_command(workload: str, task: str, options: Options) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tokenloom.bench.{workload}", task, json.dumps(options))


def _measure(workload: str, implementation: Implementation, options: Options) -> Measurement:
    command = implementation.command or _worker_command(workload, implementation.name, options)
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        with _PeakMemory(process.pid) as memory:
            output = process.communicate()[0].decode()
        seconds = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise RuntimeError(f"failed with {process.returncode}: {last[0][:200]}")
    metrics: Metrics = json.loads(output.strip().splitlines()[-1]) if implementation.command is None else {}
    return Measurement(seconds, memory.peak_bytes / 1e6, metrics)


class _PeakMemory:
    """Samples the resident memory of a process and its children every 20 ms."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            with contextlib.suppress(psutil.Error):
                processes = [self._process, *self._process.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(process.memory_info().rss for process in processes))
