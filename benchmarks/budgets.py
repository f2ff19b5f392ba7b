"""How closely runs end at their time budget: each finished run is a line of benchmarks/data/budgets.jsonl.

    python benchmarks/budgets.py --minutes 20            # again, until nothing is left: 35 minutes in all
    python benchmarks/budgets.py --source book.txt --results /tmp/budgets.jsonl

Runs `tokenloom train SOURCE --budget T` for half a minute to five minutes, on an idle machine and beside a busy loop on
each core. Each is made twice, first with an empty cache, so that text is prepared and blocks are compiled, then with
that of the first run. The time is that of the whole command. Runs that the file already contains are not repeated.
Prints a Markdown table; the exit code is 1 if a run failed or was refused.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import records

DATA = Path(__file__).parent / "data" / "budgets.jsonl"
BUDGETS = (31, 60, 120, 300)  # seconds
LOADS = ("idle", "busy")
CACHES = ("empty", "filled")
TOLERANCE = {"idle": 0.05, "busy": 0.15}
BUSY_LOOP = "while True: pass"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="python-docs", help="text to train on")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS, help="in seconds")
    parser.add_argument("--loads", nargs="*", choices=LOADS, default=LOADS)
    parser.add_argument("--minutes", type=float, default=20, help="start no pair of runs that would end later")
    parser.add_argument("--results", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    end, failures = time.time() + 60 * options.minutes, 0
    for load, budget in itertools.product(options.loads, options.budgets):
        if is_finished(options.source, budget, load, options.results) or time.time() + 2.3 * budget > end:
            continue
        with busy_cores() if load == "busy" else contextlib.nullcontext(), tempfile.TemporaryDirectory() as cache:
            for state in CACHES:
                case = {"source": options.source, "budget": budget, "load": load, "cache": state}
                try:
                    run = timed_run(options.source, budget, cache)
                except RuntimeError as error:
                    failures += 1
                    print(f"{case} failed: {error}", file=sys.stderr, flush=True)
                    continue
                append(options.results, case | run)
                print(f"{case}: {run['seconds']} s", file=sys.stderr, flush=True)
    print(table(records.read(options.results)))
    return min(1, failures)


def is_finished(source: str, budget: int, load: str, results: Path) -> bool:
    """Whether both runs of a pair are recorded."""
    keys = ("source", "budget", "load", "cache")
    recorded = {tuple(run[key] for key in keys) for run in records.read(results)}
    return {(source, budget, load, cache) for cache in CACHES} <= recorded


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """A busy loop for each core."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in psutil.Process().cpu_affinity() or []]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def timed_run(source: str, budget: int, cache: str) -> dict:
    """The wall-clock time of a command, and what it trained; raises `RuntimeError` if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenloom", "train", source, "--budget", f"{budget}s", "--json"]
        command += ["--out", f"{folder}/run"]
        started = time.time()
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TOKENLOOM_CACHE": cache})
        seconds = time.time() - started
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    summary = json.loads(done.stdout)
    return {
        "seconds": round(seconds, 1),
        "steps": summary["steps"],
        "val_bits_per_byte": summary["val_bits_per_byte"],
        "cpu": records.cpu_name(),
    }


def append(results: Path, line: dict) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def table(runs: list[dict]) -> str:
    """The deviation of each run from its budget, and whether it is within the tolerance for the load."""
    lines = ["| text | budget | load | cache | seconds | deviation | steps |", "|---|---|---|---|---|---|---|"]
    for run in runs:
        deviation = run["seconds"] / run["budget"] - 1
        verdict = "" if abs(deviation) <= TOLERANCE[run["load"]] else " (missed)"
        cells = [run["source"], f"{run['budget']} s", run["load"], run["cache"], f"{run['seconds']:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {deviation:+.1%}{verdict} | {run['steps']:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
