"""What a training run reaches in a given time: validation loss and bits per byte of the whole command, from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tokenloom.bench.harness import Contender, answer

TOKENIZERS = ("char", "bpe:512", "bpe:1024", "bpe:2048")
CONTENDERS = [Contender("tokenloom, its own choice"), *(Contender(f"tokenloom {name}") for name in TOKENIZERS)]


def ours(data: str, budget: str, tokenizer: str | None) -> dict[str, Any]:
    """`tokenloom train DATA --budget …`, its last tenth for validation."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tokenloom", "train", data, "--budget", budget, "--json"]
        command += ["--out", str(Path(folder, "run")), *(["--tokenizer", tokenizer] if tokenizer else [])]
        printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    summary = json.loads(printed.strip().splitlines()[-1])
    names = {"val_bits_per_byte": "bits_per_byte", "val_loss": "val_loss", "steps": "steps", "seconds": "train_seconds"}
    return {ours: summary[theirs] for theirs, ours in names.items()}


if __name__ == "__main__":
    answer(
        {
            "tokenloom, its own choice": partial(ours, tokenizer=None),
            **{f"tokenloom {name}": partial(ours, tokenizer=name) for name in TOKENIZERS},
        }
    )
