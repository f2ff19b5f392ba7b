"""How closely runs end at their time budget: each finished run is a line of benchmarks/data/budgets.jsonl.

    python benchmarks/budgets.py --minutes 20            # again, until nothing is left: 35 minutes in all
    python benchmarks/budgets.py --source book.txt --results /tmp/budgets.jsonl

Runs `tokenloom train SOURCE --budget T` for half a minute to five minutes, on an idle machine and beside a busy loop on
each core. Each is made twice, first with an empty cache, so that text is prepared and blocks are compiled, then with
that of the first run, which is repeated if its cache is gone. The time is that of the whole command. Runs that this
machine has recorded are not repeated, unless --refresh asks for those of this commit. Prints a Markdown table of the
newest run of each case; the exit code is 1 if a run failed or was refused.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import records

from tokenloom.data.corpora import cache_folder

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
    parser.add_argument("--minutes", type=float, default=20, help="start no run that would end later")
    parser.add_argument("--refresh", action="store_true", help="measure again what another commit has measured")
    parser.add_argument("--results", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    end, failures = time.time() + 60 * options.minutes, 0
    for load, budget in itertools.product(options.loads, options.budgets):
        case = {"source": options.source, "budget": budget, "load": load}
        cache = cache_folder() / "budgets" / f"{Path(options.source).name}-{budget}-{load}"
        states = missing(case, options.results, is_refreshed=options.refresh)
        if not cache.exists() and states:
            states = CACHES
        for state in states:
            if time.time() + 1.15 * budget > end:
                break
            try:
                run = measured_run(case | {"cache": state}, cache)
            except RuntimeError as error:
                failures += 1
                print(f"{case} failed: {error}", file=sys.stderr, flush=True)
                break
            records.write(options.results, run)
            print(f"{case}, {state} cache: {run['seconds']} s", file=sys.stderr, flush=True)
    print(table(records.read(options.results)))
    return min(1, failures)


def missing(case: dict, results: Path, *, is_refreshed: bool) -> list[str]:
    """The states of the cache in which a case is not recorded."""
    origin = records.origin() if is_refreshed else {"machine": records.machine()}
    runs = [run for run in records.read(results) if run.items() >= (case | origin).items()]
    return [state for state in CACHES if state not in {run["cache"] for run in runs}]


def measured_run(case: dict, cache: Path) -> dict:
    """The record of a run with the cache in a folder, which the second run removes."""
    if case["cache"] == "empty":
        shutil.rmtree(cache, ignore_errors=True)
    with busy_cores() if case["load"] == "busy" else contextlib.nullcontext():
        run = timed_run(case["source"], case["budget"], str(cache))
    if case["cache"] == "filled":
        shutil.rmtree(cache, ignore_errors=True)
    return {**case, **run, **records.origin(), "date": records.today()}


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
    }


def table(runs: list[dict]) -> str:
    """The deviation of each run from its budget, and whether it is within the tolerance for the load."""
    lines = ["| text | budget | load | cache | seconds | deviation | steps |", "|---|---|---|---|---|---|---|"]
    newest = {tuple(run[key] for key in ("source", "budget", "load", "cache", "machine")): run for run in runs}
    for run in newest.values():
        deviation = run["seconds"] / run["budget"] - 1
        verdict = "" if abs(deviation) <= TOLERANCE[run["load"]] else " (missed)"
        cells = [run["source"], f"{run['budget']} s", run["load"], run["cache"], f"{run['seconds']:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {deviation:+.1%}{verdict} | {run['steps']:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
