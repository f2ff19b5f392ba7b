"""Runs behind the rule of a time budget, in stages: each finished run is a line of benchmarks/data/recipe.jsonl.

    python benchmarks/recipe.py --list
    python benchmarks/recipe.py docstrings-2m --minutes 20
    python benchmarks/recipe.py shakespeare-5m --variants rule "4x256 b16 wd.3" --seeds 2

A series is a text and a time; its variants are options of `tokenloom train`. Every run is limited to one CPU core, with
one run per core side by side, and to twice the time, which is what two cores would do. Runs that the file already
contains are not repeated, and none is started that would not end within --minutes. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

DATA = Path(__file__).parent / "data" / "recipe.jsonl"


@dataclass(frozen=True)
class Series:
    """A text and a budget in seconds of one core, with the variants to compare; the first one is the reference."""

    source: str
    seconds: int
    variants: dict[str, str]


def shape(depth: int, batch: int, context: int, tokenizer: str, decay: float, *more: str) -> str:
    sizes = f"--model.n-layer {depth} --model.n-head {depth} --model.n-embd {64 * depth} --model.block-size {context}"
    training = f"--train.batch-size {batch} --train.weight-decay {decay}"
    return " ".join([sizes, training, f"--tokenizer {tokenizer}", *more])


DOCSTRINGS = {
    "rule": "",
    "3x192 bpe2048 b8x256": shape(3, 8, 256, "bpe:2048", 0.1),
    "3x192 bpe1024 b8x256": shape(3, 8, 256, "bpe:1024", 0.1),
    "3x192 bpe2048 b8x128": shape(3, 8, 128, "bpe:2048", 0.1),
    "3x192 bpe4096 b8x128": shape(3, 8, 128, "bpe:4096", 0.1),
    "3x192 char b8x256": shape(3, 8, 256, "char", 0.1),
    "4x256 bpe2048 b8x128": shape(4, 8, 128, "bpe:2048", 0.1),
    "2x128 bpe1024 b8x128": shape(2, 8, 128, "bpe:1024", 0.1),
}
CHARACTERS = {
    "rule": "",
    "4x256 b16 wd.3": shape(4, 16, 256, "char", 0.3),
    "4x256 b8 wd.2": shape(4, 8, 256, "char", 0.2),
    "4x256 b8 wd.4": shape(4, 8, 256, "char", 0.4),
    "5x320 b8 wd.2": shape(5, 8, 256, "char", 0.2),
    "3x192 b8 wd.2": shape(3, 8, 256, "char", 0.2),
    "3x192 b8 wd.4": shape(3, 8, 256, "char", 0.4),
    "4x256 b16 wd.3 lr.005": shape(4, 16, 256, "char", 0.3, "--train.learning-rate 0.005"),
    "4x256 b16 wd.3 beta.9": shape(4, 16, 256, "char", 0.3, "--train.beta1 0.9 --train.beta2 0.98"),
}
SERIES = {
    "docstrings-2m": Series("python-docs", 240, DOCSTRINGS),
    "docstrings-5m": Series("python-docs", 600, DOCSTRINGS),
    "shakespeare-2m": Series("tinyshakespeare", 240, CHARACTERS),
    "shakespeare-5m": Series("tinyshakespeare", 580, CHARACTERS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="?", choices=SERIES)
    parser.add_argument("--list", action="store_true", help="print the series and their variants")
    parser.add_argument("--variants", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant, with seeds 1, 2, …")
    parser.add_argument("--minutes", type=float, default=20, help="start no run that would end later")
    parser.add_argument("--results", type=Path, default=DATA)
    options = parser.parse_args()
    if options.list or options.series is None:
        for name, series in SERIES.items():
            print(f"{name} ({series.source}, {series.seconds} s of one core)", *series.variants, sep="\n    ")
        return
    series = SERIES[options.series]
    variants = options.variants or list(series.variants)
    for variant in variants:
        if variant not in series.variants:
            parser.error(f"unknown variant {variant!r}. Choose from: {', '.join(series.variants)}.")
    run_missing(options.series, variants, options.seeds, time.time() + 60 * options.minutes, options.results)
    print_table(options.series, variants, read_runs(options.results))


def run_missing(name: str, variants: list[str], seeds: int, end: float, results: Path) -> None:
    """Run what the file lacks, one run per core, as long as a run ends before `end` (`time.time`)."""
    series = SERIES[name]
    finished = {(run["series"], run["variant"], run["seed"]) for run in read_runs(results)}
    jobs: queue.Queue[tuple[str, int]] = queue.Queue()
    for seed, variant in itertools.product(range(1, seeds + 1), variants):
        if (name, variant, seed) not in finished:
            jobs.put((variant, seed))
    lock = threading.Lock()
    results.parent.mkdir(parents=True, exist_ok=True)

    def work(core: int) -> None:
        while time.time() + series.seconds < end:
            try:
                variant, seed = jobs.get_nowait()
            except queue.Empty:
                return
            run = {"series": name, "variant": variant, "seed": seed, **train(series, variant, seed, core)}
            with lock, results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
            print(f"{variant}, seed {seed}: {run.get('val_bits_per_byte', run)}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work, args=(core,)) for core in psutil.Process().cpu_affinity() or []]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def train(series: Series, variant: str, seed: int, core: int) -> dict:
    """Train a variant on one CPU core; returns figures of the run's summary, and the machine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenloom", "train", series.source, *series.variants[variant].split()]
        command += ["--budget", f"{series.seconds}s", "--seed", str(seed), "--json", "--out", f"{folder}/run"]
        command += ["--sample.max-new-tokens", "0", "--no-compile"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        started = time.time()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        psutil.Process(process.pid).cpu_affinity([core])
        output, errors = process.communicate()
        seconds = time.time() - started
    if process.returncode:
        return {"error": errors.strip().splitlines()[-1:]}
    summary = json.loads(output)
    kept = ("steps", "tokens", "epoch", "train_loss", "val_loss", "val_bits_per_byte")
    return {name: summary.get(name) for name in kept} | {"seconds": round(seconds, 1), "cpu": cpu_name()}


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        return next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line), ""
        )
    return platform.processor()


def read_runs(results: Path) -> list[dict]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def print_table(name: str, variants: list[str], runs: list[dict]) -> None:
    """Medians over the seeds of each variant."""
    print("| variant | bits per byte | training loss | validation loss | steps | seeds |\n|---|---|---|---|---|---|")
    for variant in variants:
        mine = [run for run in runs if (run["series"], run["variant"]) == (name, variant) and "error" not in run]
        if mine:
            columns = ("val_bits_per_byte", "train_loss", "val_loss", "steps")
            medians = [statistics.median(run[column] for run in mine) for column in columns]
            print(
                f"| {variant} | " + " | ".join(f"{m:.3f}" for m in medians[:3]) + f" | {medians[3]:.0f} | {len(mine)} |"
            )


if __name__ == "__main__":
    main()
