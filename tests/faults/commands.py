"""Commands as processes and in this process, and a small model for them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenloom
from tokenloom import api

TEXT = "all work and no play makes Jack a dull boy\n" * 40


def train_small_run(folder: Path, tokenizer: str = "char") -> Path:
    """A GPT-2 that was trained for two steps, in the folder "run"; its text is beside it."""
    text = folder / "text.txt"
    text.write_text(TEXT)
    api.train(
        text,
        out=folder / "run",
        quiet=True,
        tokenizer=tokenizer,
        settings={
            "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
            "train": {"max_steps": 2, "batch_size": 2},
            "sample": {"max_new_tokens": 0},
        },
    )
    return folder / "run"


def command_line(arguments: Sequence[str], redirect: str = "") -> list[str]:
    """The command as a process, with redirections of the shell such as 2>&-."""
    command = [sys.executable, "-m", "tokenloom", *arguments]
    return ["sh", "-c", f'exec "$@" {redirect}', "sh", *command] if redirect else command


def run_command(
    *arguments: str, redirect: str = "", cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process, with an empty standard input."""
    source = str(Path(tokenloom.__file__).parent.parent)
    variables = {**os.environ, "PYTHONPATH": source, **(environment or {})}
    return subprocess.run(
        command_line(arguments, redirect), cwd=cwd, env=variables, input=b"", capture_output=True, timeout=120
    )
