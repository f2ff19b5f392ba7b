"""Commands as processes and in this process, and a small model for them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenloom
from tokenloom import api

TEXT = "all work and no play makes Jack a dull boy\n" * 40


def train_small_run(folder: Path, name: str = "run") -> Path:
    """A GPT-2 of characters, trained for two steps; its text is beside it."""
    text = folder / "text.txt"
    text.write_text(TEXT)
    api.train(
        text,
        out=folder / name,
        quiet=True,
        tokenizer="char",
        settings={
            "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
            "train": {"max_steps": 2, "batch_size": 2},
            "sample": {"max_new_tokens": 0},
        },
    )
    return folder / name


def run_command(
    *arguments: str, redirect: str = "", cwd: Path, environment: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process; `redirect` is the shell's, such as 2>&-."""
    source = str(Path(tokenloom.__file__).parent.parent)
    command: Sequence[str] = [sys.executable, "-m", "tokenloom", *arguments]
    if redirect:
        command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
    variables = {**os.environ, "PYTHONPATH": source, **(environment or {})}
    return subprocess.run(command, cwd=cwd, env=variables, input=stdin, capture_output=True, timeout=120)
