"""Ablations of the default recipe within the same time budget.

    python benchmarks/recipe.py --variants default "no softcap" "batch 8 + no weight decay" --seeds 3
    python benchmarks/recipe.py -- python-docs --budget 2m

A variant is the default with one setting changed, or several ("batch 8 + cosine"). Each is trained once per seed
by `tokenloom train` on one CPU core, with one run per core in parallel. Prints a Markdown table. Every run is a line of
a JSONL file, and runs that the file already contains are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

DEFAULT_ARGUMENTS = ["tinyshakespeare", "--tokenizer", "char", "--budget", "90s"]

# Variant -> options of `tokenloom train`.
VARIANTS: dict[str, list[str]] = {
    "default": [],
    "no bigram embedding": ["--model.bigram-buckets", "none"],
    "4 times the bigram buckets": ["--model.bigram-buckets", "65536"],
    "value embeddings": ["--model.value-embeddings"],
    "untied embeddings": ["--model.no-tie-embeddings"],
    "no softcap": ["--model.softcap", "none"],
    "AdamW only": ["--train.optimizer", "adamw"],
    "half the learning rates": ["--train.learning-rate", "0.002", "--train.muon-learning-rate", "0.01"],
    "twice the learning rates": ["--train.learning-rate", "0.008", "--train.muon-learning-rate", "0.04"],
    "cosine": ["--train.schedule", "cosine"],
    "linear": ["--train.schedule", "linear"],
    "no gradient clipping": ["--train.grad-clip", "none"],
    "no weight decay": ["--train.weight-decay", "0"],
    "weight decay 0.3": ["--train.weight-decay", "0.3"],
    "dropout 0.1": ["--model.dropout", "0.1"],
    "beta1 0.9": ["--train.beta1", "0.9"],
    "2 heads": ["--model.n-head", "2"],
    "batch 8": ["--train.batch-size", "8"],
    "batch 32": ["--train.batch-size", "32"],
    "context 128, batch 32": ["--model.block-size", "128", "--train.batch-size", "32"],
    "3 layers of 192": ["--model.n-layer", "3", "--model.n-embd", "192", "--model.n-head", "3"],
    "5 layers of 320": ["--model.n-layer", "5", "--model.n-embd", "320", "--model.n-head", "5"],
    "6 layers of 384": ["--model.n-layer", "6", "--model.n-embd", "384", "--model.n-head", "6"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), help="choose from: " + ", ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant, with seeds 1, 2, …")
    parser.add_argument("--results", type=Path, default=Path("recipe.jsonl"), help="file to which runs are appended")
    parser.add_argument("arguments", nargs="*", help="arguments of tokenloom train, after --")
    options = parser.parse_args()
    for variant in options.variants:
        for part in variant.split(" + "):
            if part not in VARIANTS:
                parser.error(f"unknown variant {part!r}. Choose from: {', '.join(VARIANTS)}.")
    arguments = options.arguments or DEFAULT_ARGUMENTS
    runs = read_runs(options.results, arguments)
    finished = {(run["variant"], run["seed"]) for run in runs}
    jobs: queue.Queue[tuple[str, int]] = queue.Queue()
    for seed, variant in itertools.product(range(1, options.seeds + 1), options.variants):
        if (variant, seed) not in finished:
            jobs.put((variant, seed))
    lock = threading.Lock()

    def work(core: int) -> None:
        while True:
            try:
                variant, seed = jobs.get_nowait()
            except queue.Empty:
                return
            summary = train(variant, seed, core, arguments)
            run = {"variant": variant, "seed": seed, "arguments": arguments, **summary}
            with lock, options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
                runs.append(run)
                print(f"{variant}, seed {seed}: {run.get('val_bits_per_byte', summary)}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work, args=(core,)) for core in psutil.Process().cpu_affinity() or []]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print_table([run for run in runs if "error" not in run], options.variants)


def read_runs(results: Path, arguments: list[str]) -> list[dict]:
    """The runs of a results file that were made with the same arguments."""
    if not results.exists():
        return []
    runs = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return [run for run in runs if run["arguments"] == arguments]


def train(variant: str, seed: int, core: int, arguments: list[str]) -> dict:
    """Train a variant on one CPU core; returns the run's summary."""
    changes = itertools.chain.from_iterable(VARIANTS[part] for part in variant.split(" + "))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenloom", "train", *arguments, *changes]
        command += ["--seed", str(seed), "--json", "--out", f"{folder}/run", "--sample.max-new-tokens", "0"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        psutil.Process(process.pid).cpu_affinity([core])
        output, errors = process.communicate()
    if process.returncode:
        return {"error": errors.strip().splitlines()[-1:]}
    return json.loads(output)


def print_table(runs: list[dict], variants: list[str]) -> None:
    """Print medians over the seeds; differences are between runs with the same seed, which cancels its effect."""
    bits = {(run["variant"], run["seed"]): run["val_bits_per_byte"] for run in runs}
    print("| variant | bits per byte | vs. default | min, max | steps |\n|---|---|---|---|---|")
    for variant in variants:
        seeds = [seed for name, seed in bits if name == variant and ("default", seed) in bits]
        if not seeds:
            continue
        median = statistics.median(bits[variant, seed] for seed in seeds)
        differences = [bits[variant, seed] - bits["default", seed] for seed in seeds]
        steps = statistics.median(run["steps"] for run in runs if run["variant"] == variant)
        print(
            f"| {variant} | {median:.3f} | {statistics.median(differences):+.3f} "
            f"| {min(differences):+.3f}, {max(differences):+.3f} | {steps:.0f} |"
        )


if __name__ == "__main__":
    main()
