"""Runs behind the rule of a time budget, in stages: each finished run is a line of benchmarks/data/recipe.jsonl.

    python benchmarks/recipe.py --list
    python benchmarks/recipe.py docstrings-2m --minutes 20
    python benchmarks/recipe.py unseen --minutes 20      # again, until nothing is left; needs benchmarks/texts.py
    python benchmarks/recipe.py shakespeare-5m --variants rule "4x256 b16 wd.3" --seeds 2

A series is a text and a time; its variants are options of `tokenloom train`. Every run is limited to one CPU core and
to the seconds of its series, with one run per core side by side. Variants are compared on one machine: runs that the
file contains of this processor are not repeated, those of another one are. A run of the rule is repeated if its
constants have changed. None is started that would not end within --minutes. A run that fails is printed, not recorded.
Prints the tables of each series, one for each processor.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil
import records
import results as document
from recipe_series import GROUPS, RULE, SERIES, Series
from result_tables import recipe_tables
from texts import TEXTS, text_file

from tokenloom.config import Config
from tokenloom.data.corpora import CORPUS_NAMES
from tokenloom.run_folder import RunFolder
from tokenloom.training import rule

DATA = Path(__file__).parent / "data" / "recipe.jsonl"
KEPT = ("steps", "tokens", "epoch", "train_loss", "val_loss", "val_bits_per_byte")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; returns 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", nargs="?", choices=[*SERIES, *GROUPS], help="a series, or a group of them")
    parser.add_argument("--list", action="store_true", help="print the series and their variants")
    parser.add_argument("--variants", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant, with seeds 1, 2, …")
    parser.add_argument("--minutes", type=float, default=20, help="start no run that would end later")
    parser.add_argument("--results", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    if options.list or options.series is None:
        for name, series in SERIES.items():
            print(f"{name} ({series.source}, {series.seconds} s of one core)", *series.variants, sep="\n    ")
        return 0
    names = GROUPS.get(options.series, (options.series,))
    for name in names:
        for variant in options.variants or ():
            if variant not in SERIES[name].variants:
                parser.error(f"unknown variant {variant!r}. Choose from: {', '.join(SERIES[name].variants)}.")
        if error := missing_text(SERIES[name].source):
            parser.error(error)
    end, failures = time.time() + 60 * options.minutes, 0
    for name in names:
        variants = options.variants or list(SERIES[name].variants)
        failures += run_missing(name, variants, options.seeds, end, options.results)
        wanted = {recorded(variant) for variant in variants}
        runs = [run for run in records.read(options.results) if run["series"] == name and run["variant"] in wanted]
        print(*recipe_tables(runs), sep="\n")
    document.write()  # its tables have these runs
    return min(1, failures)


def missing_text(source: str) -> str | None:
    """What to do if a text is not there."""
    if source in CORPUS_NAMES or text_file(source).is_file():
        return None
    return f"the text {source} is not in {text_file(source).parent}. Run: python benchmarks/texts.py"


def run_missing(
    name: str,
    variants: Iterable[str],
    seeds: int,
    end: float,
    results: Path,
    train: Callable[[Series, str, int, int], dict] | None = None,
) -> int:
    """Run what the file lacks of this processor, one run per core, as long as a run ends before `end`.

    `train` is called with the series, the variant, the seed and the core, and returns the figures of a run. Returns the
    number of failures.
    """
    series, train = SERIES[name], train or train_on_core
    cpu = records.cpu_name()
    origin = {"cpu": cpu, "commit": records.commit(), "date": records.today()}
    finished = {(run["series"], run["variant"], run["seed"]) for run in records.read(results) if run["cpu"] == cpu}
    jobs: queue.Queue[tuple[str, int]] = queue.Queue()
    for seed, variant in itertools.product(range(1, seeds + 1), variants):
        if (name, recorded(variant), seed) not in finished:
            jobs.put((variant, seed))
    lock, failures = threading.Lock(), []

    def work(core: int) -> None:
        while time.time() + series.seconds < end:
            try:
                variant, seed = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                run = train(series, variant, seed, core)
            except (RuntimeError, ValueError, OSError) as error:
                failures.append(variant)
                print(f"{name}, {variant}, seed {seed} failed: {error}", file=sys.stderr, flush=True)
                continue
            line = {"series": name, "variant": recorded(variant), "seed": seed, **run, **origin}
            with lock:
                records.write(results, line)
            print(f"{name}, {variant}, seed {seed}: {run['val_bits_per_byte']:.3f}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work, args=(core,)) for core in psutil.Process().cpu_affinity() or []]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failures)


def recorded(variant: str) -> str:
    """The name under which a variant is recorded; that of the rule includes its constants, as a hash."""
    if variant != RULE:
        return variant
    constants = [(name, value) for name, value in vars(rule).items() if isinstance(value, int | float | dict)]
    return f"{RULE} {hashlib.sha256(repr(sorted(constants)).encode()).hexdigest()[:7]}"


def train_on_core(series: Series, variant: str, seed: int, core: int) -> dict:
    """Train a variant on one CPU core; returns figures of the run's summary, and the settings that it had.

    Raises `RuntimeError` with the last line of the error output if it fails.
    """
    source = str(text_file(series.source)) if series.source in TEXTS else series.source
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenloom", "train", source, *series.variants[variant].split()]
        command += ["--budget", f"{series.seconds}s", "--seed", str(seed), "--json", "--out", f"{folder}/run"]
        command += ["--sample.max-new-tokens", "0", "--no-compile"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        started = time.time()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        psutil.Process(process.pid).cpu_affinity([core])
        output, errors = process.communicate()
        seconds = time.time() - started
        if process.returncode:
            raise RuntimeError(errors.strip().splitlines()[-1] if errors.strip() else f"exit code {process.returncode}")
        config = RunFolder(Path(folder, "run")).config()
    summary = json.loads(output)
    return {name: summary.get(name) for name in KEPT} | chosen_settings(config) | {"seconds": round(seconds, 1)}


def chosen_settings(config: Config) -> dict:
    """Those that the rule of a time budget chooses, by name."""
    return {
        "n_layer": config.model.n_layer,
        "n_embd": config.model.n_embd,
        "tokenizer": config.data.tokenizer,
        "batch_size": config.train.batch_size,
        "block_size": config.model.block_size,
        "weight_decay": config.train.weight_decay,
    }


if __name__ == "__main__":
    sys.exit(main())
