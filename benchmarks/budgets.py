"""How closely runs end at their time budget: each finished run is a line of benchmarks/data/budgets.jsonl.

    python benchmarks/budgets.py --minutes 20            # again, until nothing is left: 24 minutes in all
    python benchmarks/budgets.py --source book.txt --results /tmp/budgets.jsonl

Runs `tokenloom train SOURCE --budget T` for half a minute to five minutes, on an idle machine and beside a busy loop on
each core. Each is made with an empty cache, so that text is prepared, and blocks are compiled in long runs. Those of up
to two minutes are made again with the cache of that run, which is repeated if its cache is gone. The time is that of
the whole command. Runs that this machine has recorded are not repeated, unless --refresh asks for those of this commit.
Prints a table for each machine; the exit code is 1 if a run failed or was refused.
"""

from __future__ import annotations

import argparse
import contextlib
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
from result_tables import markdown

from tokenloom.data.corpora import cache_folder

DATA = Path(__file__).parent / "data" / "budgets.jsonl"
BUDGETS = (31, 60, 120, 300)  # seconds
LOADS = ("idle", "busy")
# Budget, load and state of the cache, in the order in which they are run: the most important ones first.
CASES = (
    *((budget, load, "empty") for load in LOADS for budget in (60, 120, 300)),
    *((31, load, "empty") for load in LOADS),
    *((budget, load, "filled") for load in LOADS for budget in (31, 60, 120)),
)
TOLERANCE = {"idle": 0.05, "busy": 0.15}
BUSY_LOOP = "while True: pass"
CASE = ("budget", "load", "cache")
COLUMNS = ("text", "budget", "machine", "cache", "wall-clock", "deviation", "steps", "bits per byte")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="python-docs", help="text to train on")
    parser.add_argument("--budgets", type=int, nargs="*", choices=BUDGETS, default=BUDGETS, help="in seconds")
    parser.add_argument("--loads", nargs="*", choices=LOADS, default=LOADS)
    parser.add_argument("--minutes", type=float, default=20, help="start no run that would end later")
    parser.add_argument("--refresh", action="store_true", help="measure again what another commit has measured")
    parser.add_argument("--results", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    end, failures = time.time() + 60 * options.minutes, 0
    caches = emptied_of_other_commits(cache_folder() / "budgets")
    for budget, load, state in CASES:
        case = {"source": options.source, "budget": budget, "load": load}
        if budget not in options.budgets or load not in options.loads:
            continue
        if is_recorded(case | {"cache": state}, options.results, is_refreshed=options.refresh):
            continue
        cache = caches / f"{Path(options.source).name}-{budget}-{load}"
        for made in (state,) if state == "empty" or cache.exists() else ("empty", "filled"):
            if time.time() + 1.15 * budget > end:
                break
            try:
                run = measured_run(case | {"cache": made}, cache)
            except RuntimeError as error:
                failures += 1
                print(f"{case} failed: {error}", file=sys.stderr, flush=True)
                break
            records.write(options.results, run)
            print(f"{case}, {made} cache: {run['seconds']} s", file=sys.stderr, flush=True)
    print("\n\n".join("\n".join(lines) for lines in tables(records.read(options.results))))
    return min(1, failures)


def emptied_of_other_commits(parent: Path) -> Path:
    """The folder of this commit's caches; those of others are removed, because their blocks are compiled again."""
    folder = parent / records.commit()
    for other in parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def is_recorded(case: dict, results: Path, *, is_refreshed: bool) -> bool:
    """Whether this machine has a record of a case, at this commit if others are refreshed."""
    origin = records.origin() if is_refreshed else {"machine": records.machine()}
    return any(run.items() >= (case | origin).items() for run in records.read(results))


def measured_run(case: dict, cache: Path) -> dict:
    """The record of a run with the cache in a folder, which is removed if no other run of the case needs it."""
    if case["cache"] == "empty":
        shutil.rmtree(cache, ignore_errors=True)
    with busy_cores() if case["load"] == "busy" else contextlib.nullcontext():
        run = timed_run(case["source"], case["budget"], str(cache))
    if case["cache"] == "filled" or (case["budget"], case["load"], "filled") not in CASES:
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


def tables(runs: Sequence[dict]) -> list[list[str]]:
    """The newest run of each case on each machine, with its deviation from the budget, as Markdown."""
    newest = {tuple(run[key] for key in ("machine", "source", *CASE)): run for run in runs}
    found: list[list[str]] = []
    for machine in sorted({run["machine"] for run in newest.values()}):
        mine = sorted((run for run in newest.values() if run["machine"] == machine), key=order)
        commits = ", ".join(dict.fromkeys(run["commit"] for run in mine))
        lines = [f"({machine}; commit {commits}, {max(run['date'] for run in mine)})", ""]
        found.append(lines + markdown(COLUMNS, map(cells, mine)))
    return found


def order(run: dict) -> tuple:
    return (run["source"], LOADS.index(run["load"]), run["budget"], run["cache"])


def cells(run: dict) -> list[str]:
    deviation = run["seconds"] / run["budget"] - 1
    verdict = "" if abs(deviation) <= TOLERANCE[run["load"]] else " (missed)"
    return [
        run["source"],
        f"{run['budget']} s",
        run["load"],
        run["cache"],
        f"{run['seconds']:.1f} s",
        f"{deviation:+.1%}{verdict}",
        f"{run['steps']:,}",
        f"{run['val_bits_per_byte']:.3f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
