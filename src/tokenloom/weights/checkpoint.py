"""Checkpoints: written whole or not at all, verified when read, never a pickle.

A checkpoint is a folder `step-00001000` of safetensors and JSON files. It is written beside its place, flushed to the
disk, sealed by MANIFEST.json (sizes and sha256 of every file) and renamed. A reader takes the newest one whose
manifest holds, so that a crash at any moment costs at most the work since the last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokenloom.errors import CheckpointError
from tokenloom.model import Model
from tokenloom.weights.folder import read_folder, write_folder

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
OPTIMIZER = "optimizer.safetensors"
CHECKPOINTS = "checkpoints"  # their folder in a run
_STEP_FOLDER = re.compile(r"(step|best)-(\d{8,})")


class SavesItself(Protocol):
    """A tokenizer, as far as a checkpoint is concerned."""

    eot_id: int

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder whose manifest held when it was opened."""

    path: Path

    @property
    def step(self) -> int:
        match = _STEP_FOLDER.fullmatch(self.path.name)
        return int(match[2]) if match else int(self.state().get("step", 0))

    def model(self) -> Model:
        """The model, on the CPU in fp32, in evaluation mode."""
        return read_folder(self.path).read()

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """What `Optimizer.state_tensors` gave; empty in a checkpoint of weights alone."""
        path = self.path / OPTIMIZER
        return load_file(path) if path.exists() else {}

    def state(self) -> dict[str, Any]:
        """Where the training stood: step, tokens, best validation loss."""
        path = self.path / "state.json"
        return json.loads(path.read_text()) if path.exists() else {}


def save_checkpoint(
    folder: Path,
    step: int,
    model: Model,
    tokenizer: SavesItself,
    *,
    state: Mapping[str, Any],
    optimizer: Mapping[str, Tensor] | None = None,
    kind: str = "step",
) -> Checkpoint:
    """Write `folder/<kind>-<step>`, replacing one of the same name; an interruption leaves no half-written folder."""

    def write(target: Path) -> None:
        write_folder(target, model, tokenizer.eot_id)
        tokenizer.save(target)
        if optimizer is not None:
            save_file({name: t.detach().contiguous() for name, t in optimizer.items()}, target / OPTIMIZER)
        _write_json(target / "state.json", {"format": FORMAT_VERSION, "step": step, **state})

    path = folder / f"{kind}-{step:08d}"
    write_sealed(path, write)
    return Checkpoint(path)


def write_sealed(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, seal it with a manifest, and move it to `path` in one step."""

    def write_and_seal(folder: Path) -> None:
        write(folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        entries = {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": sha256_of(f)} for f in files}
        _write_json(folder / MANIFEST, {"format": FORMAT_VERSION, "files": entries})

    write_whole_folder(
        path, write_and_seal, "Free some space or choose another --out; earlier checkpoints are untouched."
    )


def write_whole_folder(
    path: Path, write: Callable[[Path], None], advice: str = "Free some space or choose another place."
) -> None:
    """Let `write` fill a folder beside `path`, flush it to the disk, and move it there, in place of what was there."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    replaced = path.with_name(f".{path.name}.replaced")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        write(unfinished)
        for file in unfinished.rglob("*"):
            _flush(file)
        _flush(unfinished)
        shutil.rmtree(replaced, ignore_errors=True)
        if path.exists():
            path.rename(replaced)
        unfinished.rename(path)
        _flush(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"could not write {path}: {reason}. {advice}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_whole_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, then move it there."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        _flush(unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save has a RuntimeError for a full disk
        raise CheckpointError(f"could not write {path}: {error}. Free some space or choose another place.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def find_corruption(path: Path) -> str | None:
    """What is wrong with a sealed folder, in a few words; None if nothing is."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        version = manifest["format"]
        entries = [(name, int(entry["bytes"]), entry["sha256"]) for name, entry in manifest["files"].items()]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST} is not readable"
    if version != FORMAT_VERSION:
        return f"format {version} is not {FORMAT_VERSION}"
    for name, size, sha256 in entries:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
        if sha256_of(file) != sha256:
            return f"{name} does not match its sha256"
    return None


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint by its path; raises `CheckpointError` if it is damaged."""
    problem = find_corruption(path)
    if problem:
        raise CheckpointError(f"checkpoint {path} is damaged: {problem}. Use another one.")
    return Checkpoint(path)


def newest_checkpoint(folder: Path, kind: str = "step") -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint of a kind, and a line for each newer one that had to be passed over."""
    notices = []
    for path in reversed(list_checkpoints(folder, kind)):
        problem = find_corruption(path)
        if problem is None:
            return Checkpoint(path), notices
        notices.append(f"checkpoint {path} is damaged ({problem}); going back to the one before")
    return None, notices


def list_checkpoints(folder: Path, kind: str = "step") -> list[Path]:
    """Checkpoint folders of a kind, oldest first, damaged ones included."""
    found = [(match, path) for path in folder.glob(f"{kind}-*") if (match := _STEP_FOLDER.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: int(pair[0][2]))]


def rotate_checkpoints(folder: Path, keep: int, kind: str = "step") -> None:
    """Remove all but the newest `keep` checkpoints of a kind, never the newest valid one."""
    paths = list_checkpoints(folder, kind)
    if len(paths) > keep:
        newest, _ = newest_checkpoint(folder, kind)
        for path in paths[:-keep]:
            if newest is None or path != newest.path:
                shutil.rmtree(path, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole small file or leave the one that was there."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    _flush(unfinished)
    unfinished.replace(path)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot flush a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
