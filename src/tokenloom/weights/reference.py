"""References to models: the weights that a name, a path, or a path with @best, @first or @step-N stands for.

What a path contains decides, not its name: a run may be called `exp.pt` or `model@best`.
"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Literal

from tokenloom.errors import CheckpointError, shortened
from tokenloom.home import expand_home
from tokenloom.run_folder import RunFolder
from tokenloom.weights.checkpoint import (
    MANIFEST,
    Checkpoint,
    first_checkpoint,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
)
from tokenloom.weights.download import download_model, has_model_name, is_model_name
from tokenloom.weights.gguf import GGUF
from tokenloom.weights.torch_files import TORCH_SUFFIXES

FileFormat = Literal["gguf", "torch", "safetensors"]

SUPPORTED = "a run, a checkpoint, a folder of GPT-2 or Qwen3, a .gguf, a .pth, or gpt2"
# Of files that are empty or corrupt; otherwise the first bytes decide.
_FORMAT_OF_SUFFIX: dict[str, FileFormat] = {
    GGUF: "gguf",
    **dict.fromkeys(TORCH_SUFFIXES, "torch"),
    ".safetensors": "safetensors",
}


def find_weights(reference: str | Path) -> tuple[Path, list[str]]:
    """The file or folder of weights that `reference` names, and notices such as corrupt checkpoints that were skipped.

    A checkpoint that has a manifest is verified. An existing path has precedence over the name of a model and over
    @best, @first and @step-N. Raises `CheckpointError`, and `WeightsError` if a download fails.
    """
    if is_model_name(reference):
        return download_model(str(reference)), []
    path, selector = split_reference(reference)
    if not os.path.exists(path):
        raise CheckpointError(f"{shortened(str(path))} does not exist. Name {SUPPORTED}.", topic="no such model")
    checkpoints = RunFolder(path).checkpoints
    if not checkpoints.is_dir():
        if selector:
            raise CheckpointError(f"{path} is not a run folder, so it has no @{selector}. Leave @{selector} out.")
        shadowed = [f"using the local {reference}, not the model of that name"] if has_model_name(reference) else []
        return (open_checkpoint(path).path if (path / MANIFEST).exists() else path), shadowed
    if selector.startswith("step-"):
        return open_checkpoint(_checkpoint_of_step(checkpoints, int(selector.removeprefix("step-")))).path, []
    found, notices = (
        first_checkpoint(checkpoints) if selector == "first" else newest_checkpoint(checkpoints, selector or "step")
    )
    if found is None:
        suffix = f" @{selector}" if selector else ""
        raise CheckpointError(
            f"{path} has no valid checkpoint{suffix}. {_available(checkpoints)}", topic="no such model"
        )
    return found.path, notices


def split_reference(reference: str | Path) -> tuple[Path, str]:
    """The path in a reference, and the "best", "first" or "step-N" that is selected after it; "" if none is."""
    reference = str(expand_home(reference))
    match = re.fullmatch(r"(.*)@(best|first|step-\d+)", reference, flags=re.DOTALL)
    if match is None or os.path.exists(reference):
        return Path(reference), ""
    return Path(match[1]), match[2]


def file_format(path: Path) -> FileFormat | None:
    """The format of a file of weights, by its first bytes; None for a folder and for other files.

    Raises `CheckpointError` if it cannot be read.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from None
    if start.startswith(b"GGUF"):
        return "gguf"
    if start.startswith((b"PK\x03\x04", pickle.PROTO)):
        return "torch"
    if start[8:] == b"{":  # after the length of the header
        return "safetensors"
    return _FORMAT_OF_SUFFIX.get(path.suffix.lower())


def _checkpoint_of_step(checkpoints: Path, step: int) -> Path:
    for kind in ("step", "best"):
        path = checkpoints / f"{kind}-{step:08d}"
        if path.is_dir():
            return path
    raise CheckpointError(
        f"{checkpoints.parent} has no checkpoint of step {step}. {_available(checkpoints)}", topic="no such model"
    )


def _available(checkpoints: Path) -> str:
    steps = {Checkpoint(path).step for kind in ("step", "best") for path in list_checkpoints(checkpoints, kind)}
    names = [f"@step-{step}" for step in sorted(steps)]
    return f"Available: {', '.join(names)}." if names else "Train the model first."
