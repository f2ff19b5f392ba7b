"""What each ingredient of the default recipe is worth, in the same time: `python benchmarks/recipe.py`.

Every variant is the default with one thing changed ("GELU"), or several ("GELU + batch 8"), trained once for each
seed within the same wall-clock. One run takes one core; as many run side by side as there are cores. Prints a
Markdown table; every run is a line of the JSONL file, and runs that it already holds are not made again.
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
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import nn

# Settings that make the variant, as on the command line.
SETTINGS: dict[str, list[str]] = {
    "default": [],
    "no embedding of pairs": ["--model.bigram-buckets", "none"],
    "pairs: 4 times the buckets": ["--model.bigram-buckets", "65536"],
    "value embeddings": ["--model.value-embeddings"],
    "own output head": ["--model.no-tie-embeddings"],
    "no softcap": ["--model.softcap", "none"],
    "AdamW alone": ["--train.optimizer", "adamw"],
    "half the rates": ["--train.learning-rate", "0.002", "--train.muon-learning-rate", "0.01"],
    "twice the rates": ["--train.learning-rate", "0.008", "--train.muon-learning-rate", "0.04"],
    "cosine": ["--train.schedule", "cosine"],
    "decay from the start": ["--train.schedule", "linear"],
    "no clipping": ["--train.grad-clip", "none"],
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
    "no norm of queries and keys": [],
    "GELU": [],
    "SwiGLU": [],
    "no return of the first embedding": [],
    "no norm after the embedding": [],
    "projections start random": [],
}


def _heads_as_they_are() -> None:
    from tokenloom.model import modern

    norm = modern._norm
    modern._norm = lambda x: x if x.ndim == 4 else norm(x)  # only queries and keys have four dimensions


def _gelu() -> None:
    from tokenloom.model import modern

    modern.MLP.forward = lambda self, x: self.c_proj(F.gelu(self.c_fc(x)))


def _swiglu() -> None:
    """As many weights: gate, up and down are 8/3 as wide as the stream."""
    from tokenloom.model import modern

    class SwiGLU(nn.Module):
        def __init__(self, config) -> None:
            super().__init__()
            inner = round(8 / 3 * config.n_embd / 32) * 32
            self.c_gate = modern.linear(config.n_embd, inner, bias=False)
            self.c_fc = modern.linear(config.n_embd, inner, bias=False)
            self.c_proj = modern.linear(inner, config.n_embd, bias=False)

        def forward(self, x):
            return self.c_proj(F.silu(self.c_gate(x)) * self.c_fc(x))

    modern.MLP = SwiGLU


def _never_return() -> None:
    from tokenloom.model import modern

    init_weights = modern.Modern.init_weights

    def fixed(self, generator) -> None:
        init_weights(self, generator)
        for block in self.h:
            block.mix.requires_grad_(False)

    modern.Modern.init_weights = fixed


def _embedding_as_it_is() -> None:
    from tokenloom.model import modern

    norm, first = modern._norm, modern.Modern.hidden

    def hidden(self, ids, cache=None):
        calls = iter([True])
        modern._norm = lambda x: x if next(calls, False) else norm(x)
        try:
            return first(self, ids, cache)
        finally:
            modern._norm = norm

    modern.Modern.hidden = hidden


def _random_projections() -> None:
    from tokenloom.model import modern

    init_weights = modern.Modern.init_weights

    def drawn(self, generator) -> None:
        init_weights(self, generator)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02, generator=generator)

    modern.Modern.init_weights = drawn


# Variants that no setting makes: what is changed in the model before it is built.
PATCHES: dict[str, Callable[[], None]] = {
    "no norm of queries and keys": _heads_as_they_are,
    "GELU": _gelu,
    "SwiGLU": _swiglu,
    "no return of the first embedding": _never_return,
    "no norm after the embedding": _embedding_as_it_is,
    "projections start random": _random_projections,
}


def run_here(variant: str, arguments: list[str]) -> None:
    """This process: train one variant by the program itself."""
    parts = variant.split(" + ")
    for part in parts:
        PATCHES.get(part, lambda: None)()
    from tokenloom.cli.main import main

    sys.argv = ["tokenloom", "train", *arguments, *itertools.chain.from_iterable(SETTINGS[part] for part in parts)]
    main()


def run_apart(variant: str, seed: int, core: int, arguments: list[str]) -> dict:
    """A process of its own, on one core; gives its summary."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--here", variant, "--", *arguments]
        command += ["--seed", str(seed), "--json", "--out", f"{folder}/run", "--sample.max-new-tokens", "0"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    if done.returncode != 0:
        return {"error": done.stderr.strip().splitlines()[-1:]}
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="*", default=list(SETTINGS), help="of " + ", ".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("recipe.jsonl"))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help="of tokenloom train, after --")
    options = parser.parse_args()
    if options.here:
        run_here(options.here, options.arguments)
        return
    arguments = options.arguments or ["tinyshakespeare", "--tokenizer", "char", "--budget", "90s"]
    made = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    known = {(run["variant"], run["seed"]) for run in made if run["arguments"] == arguments}
    jobs: queue.Queue[tuple[str, int]] = queue.Queue()
    for seed in range(1, options.seeds + 1):
        for variant in options.variants:
            if (variant, seed) not in known:
                jobs.put((variant, seed))
    lock = threading.Lock()

    def work(core: int) -> None:
        while True:
            try:
                variant, seed = jobs.get_nowait()
            except queue.Empty:
                return
            result = run_apart(variant, seed, core, arguments)
            line = {"variant": variant, "seed": seed, "arguments": arguments, **result}
            with lock, options.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
                made.append(line)
                print(f"{variant}, seed {seed}: {result.get('val_bits_per_byte', result)}", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work, args=(core,)) for core in sorted(os.sched_getaffinity(0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print_table([run for run in made if run["arguments"] == arguments and "error" not in run], options.variants)


def print_table(runs: list[dict], variants: list[str]) -> None:
    """Differences are of runs with the same seed: what the seed does to both is not counted."""
    bits = {(run["variant"], run["seed"]): run["val_bits_per_byte"] for run in runs}
    print("| variant | bits per byte | beside the default | least, most | steps |\n|---|---|---|---|---|")
    for variant in variants:
        seeds = [seed for name, seed in bits if name == variant and ("default", seed) in bits]
        if not seeds:
            continue
        median = statistics.median(bits[variant, seed] for seed in seeds)
        apart = [bits[variant, seed] - bits["default", seed] for seed in seeds]
        steps = statistics.median(run["steps"] for run in runs if run["variant"] == variant)
        print(
            f"| {variant} | {median:.3f} | {statistics.median(apart):+.3f} | {min(apart):+.3f}, {max(apart):+.3f} "
            f"| {steps:.0f} |"
        )


if __name__ == "__main__":
    main()
