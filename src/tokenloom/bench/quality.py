"""Validation loss and bits per byte that a training run reaches within a time budget, by tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tokenloom.bench.harness import Implementation, Metrics, worker_main

TOKENIZERS = ("char", "bpe:512", "bpe:1024", "bpe:2048")
IMPLEMENTATIONS = (
    Implementation("tokenloom, default"),
    *(Implementation(f"tokenloom {name}") for name in TOKENIZERS),
)
# Keys of `tokenloom train --json` -> metrics.
SUMMARY_METRICS = {
    "val_bits_per_byte": "bits_per_byte",
    "val_loss": "val_loss",
    "steps": "steps",
    "seconds": "train_seconds",
}


def train(data: str, budget: str, tokenizer: str | None) -> Metrics:
    """Run `tokenloom train DATA --budget BUDGET`, with the last 10 % of the text for validation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenloom", "train", data, "--budget", budget, "--json"]
        command += ["--out", str(Path(folder, "run")), *(["--tokenizer", tokenizer] if tokenizer else [])]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    summary: Metrics = json.loads(output.strip().splitlines()[-1])
    return {metric: summary[key] for key, metric in SUMMARY_METRICS.items()}


TASKS = {
    "tokenloom, default": partial(train, tokenizer=None),
    **{f"tokenloom {name}": partial(train, tokenizer=name) for name in TOKENIZERS},
}

if __name__ == "__main__":
    worker_main(TASKS)
