"""Compares this commit with an older one: the speed of a training step, and what the default run reaches.

    python benchmarks/compare_commits.py step
    python benchmarks/compare_commits.py step --cases "3x192, 8x128" --rounds 20
    python benchmarks/compare_commits.py default --budget 2m

`step` starts both commits, each in its own process, and lets them train in turn, a few steps at a time; the result is
the median of the ratios of neighbouring turns, so that other load on the machine affects both sides. `default` runs
`tokenloom train` of both commits one after the other. Each result is added to benchmarks/data/results.jsonl at once,
and what this commit has there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import records

BEFORE = "f102202"  # the last commit before the modern family became Qwen3, and before the rule of a time budget
TURN_SECONDS = 2.0
STEP_MINUTES = 1.0  # to start two processes, which may compile, and to train their first steps

# The settings of both sides, over those of the preset modern-xs of their commit.
FORMER_DEFAULT = {
    "model": {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256},
    "train": {"batch_size": 16},
}
SMALLER = {"n_layer": 3, "n_head": 3, "n_embd": 192}
CASES = {
    "4x256, 16x256": (FORMER_DEFAULT, FORMER_DEFAULT),
    "3x192, 8x256": (FORMER_DEFAULT, {"model": SMALLER | {"block_size": 256}, "train": {"batch_size": 8}}),
    "3x192, 8x128": (FORMER_DEFAULT, {"model": SMALLER | {"block_size": 128}, "train": {"batch_size": 8}}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, help="the older commit")
    commands = parser.add_subparsers(dest="command", required=True)
    step = commands.add_parser("step", help="tokens/s of training steps")
    step.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    step.add_argument("--rounds", type=int, default=10, help="turns of each commit")
    step.add_argument("--eager", action="store_true", help="without compiled steps of this commit")
    default = commands.add_parser("default", help="bits per byte of the default run")
    default.add_argument("--budget", default="2m")
    for command in (step, default):
        command.add_argument("--minutes", type=float, default=20, help="start nothing that would end later")
    worker = commands.add_parser("worker", help="one side of step: trains as many steps as each line of stdin says")
    worker.add_argument("settings", type=json.loads)
    options = parser.parse_args()
    if options.command == "worker":
        work(options.settings)
        return
    end = time.time() + 60 * options.minutes
    with checked_out(options.before) as before:
        if options.command == "step":
            for case in options.cases:
                for is_compiled in (False,) if options.eager else (False, True):
                    compare_steps(before, case, is_compiled, options.rounds, end)
        else:
            compare_default_runs(before, options.before, options.budget, end)


@contextmanager
def checked_out(commit: str) -> Generator[Path]:
    """A folder with the files of a commit."""
    with tempfile.TemporaryDirectory() as folder:
        records.git("worktree", "add", "--quiet", "--detach", folder, commit)
        try:
            yield Path(folder)
        finally:
            records.git("worktree", "remove", "--force", folder)


def is_due(part: str, case: dict, minutes: float, end: float) -> bool:
    """Whether this commit has no result of a case, and it would end before `end` (`time.time`)."""
    if any(result.items() >= case.items() for result in records.measured(part)):
        return False
    if time.time() + 60 * minutes > end:
        print(f"{part}, {case}: left out, because it takes about {minutes:.1f} minutes", file=sys.stderr, flush=True)
        return False
    return True


def compare_steps(before: Path, case: str, is_compiled: bool, rounds: int, end: float) -> None:
    name = {"case": f"{case}{', compiled' if is_compiled else ''}"}
    if not is_due("step", name, STEP_MINUTES + 2 * rounds * TURN_SECONDS / 60, end):
        return
    old_settings, new_settings = CASES[case]
    new_settings = new_settings | {"train": new_settings["train"] | {"compile": is_compiled}}
    with Worker(before, old_settings) as old, Worker(records.ROOT, new_settings) as new:
        rates = [(old.tokens_per_sec(), new.tokens_per_sec()) for _ in range(rounds)]
    ratios = [after / before for before, after in rates]
    result = {
        **name,
        "tokens_per_sec_before": round(statistics.median(before for before, _ in rates)),
        "tokens_per_sec": round(statistics.median(after for _, after in rates)),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }
    print(
        "{case:24} {tokens_per_sec_before:,} before, {tokens_per_sec:,} now, {ratio:.2f} times".format(**result),
        flush=True,
    )
    records.append("step", result)


def compare_default_runs(before: Path, before_commit: str, budget: str, end: float) -> None:
    from tokenloom.training.budget import parse_budget  # not at the top: the worker runs with older code

    for name, folder in ((before_commit, before), ("this commit", records.ROOT)):
        if not is_due("default", {"commit": name, "budget": budget}, parse_budget(budget) / 60 + 0.5, end):
            continue
        result = {"commit": name, "budget": budget, **default_run(folder, budget)}
        print("{commit:12} {val_bits_per_byte:.3f} bits per byte, {wall_seconds:.0f} s".format(**result), flush=True)
        records.append("default", result)


def default_run(folder: Path, budget: str) -> dict:
    """The summary of `tokenloom train` of a commit, and the time of the whole command."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "tokenloom", "train", "--budget", budget, "--json", "--out", f"{out}/run"]
        started = time.time()
        process = subprocess.run(command, env=environment(folder), stdout=subprocess.PIPE, check=True, text=True)
        seconds = time.time() - started
    summary = json.loads(process.stdout)
    kept = ("steps", "tokens", "tokens_per_sec", "val_loss", "val_bits_per_byte")
    return {"wall_seconds": seconds, **{name: summary[name] for name in kept}}


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder / "src")}


class Worker:
    """A process that trains with the code in a folder, and only while it is asked to."""

    def __init__(self, folder: Path, settings: dict) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "worker", json.dumps(settings)],
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        self._train(3)  # warms up, and compiles
        tokens_per_step, seconds = self._train(3)
        self._tokens_per_step, self._steps = tokens_per_step, max(1, round(3 * TURN_SECONDS / seconds))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def tokens_per_sec(self) -> float:
        return self._tokens_per_step * self._steps / self._train(self._steps)[1]

    def _train(self, steps: int) -> tuple[int, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        tokens_per_step, seconds = self._process.stdout.readline().split()
        return int(tokens_per_step), float(seconds)


def work(settings: dict) -> None:
    """Train on the docstrings of the standard library; uses only names that both commits have."""
    from tokenloom.compute.parallel import World
    from tokenloom.compute.runtime import choose_runtime, tune_malloc
    from tokenloom.config import Config
    from tokenloom.config_files import read_preset
    from tokenloom.data.prepare import prepare_cached
    from tokenloom.run_folder import RunFolder
    from tokenloom.training.preflight import preflight
    from tokenloom.training.run import build_state
    from tokenloom.training.step import train_step

    tune_malloc()
    config = Config.of(read_preset("modern-xs"), settings)
    shards = prepare_cached(config.data)
    config = config.with_values(model={"vocab_size": shards.tokenizer.vocab_size})
    folder = RunFolder(Path("compare_commits"))  # nothing is written to it
    state = build_state(config, shards, folder, choose_runtime(), World(), preflight(config, shards))
    step = 0
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            train_step(state, step)
            step += 1
        print(state.tokens_per_step, time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
