"""Checkpoints: written atomically, verified against their manifest when opened, never pickled.

A checkpoint is a folder `step-00001000` of safetensors and JSON files. Several processes write several safetensors
files, each with whole tensors, and an index; all else is the same. MANIFEST.json, written last, lists the size and
sha256 of every other file. Readers take the newest checkpoint that matches its manifest, so a crash costs at most the
work since the last checkpoint.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from tokenloom.errors import CheckpointError
from tokenloom.model import GPT
from tokenloom.storage import recover_folders, sha256_of
from tokenloom.strict_json import dump_json, load_json
from tokenloom.weights.folder import read_folder, write_folder
from tokenloom.weights.output import output_folder
from tokenloom.weights.safetensors_files import has_safetensors, load_tensors, save_tensors, shard_files

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
ADVICE = "Free some space or choose another --out; earlier checkpoints are untouched."
ManifestEntry = Mapping[str, int | str]
_NAME = re.compile(r"(step|best)-(\d{8,})")


class SavableTokenizer(Protocol):
    """The part of a tokenizer that a checkpoint uses."""

    eot_id: int

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that matched its manifest when it was opened."""

    path: Path

    @property
    def step(self) -> int:
        match = _NAME.fullmatch(self.path.name)
        return int(match[2]) if match else int(self.state().get("step", 0))

    def model(self) -> GPT:
        """The model, on the CPU in fp32, in evaluation mode."""
        return read_folder(self.path).read()

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizer state, as `Optimizer.state_tensors` names it; empty if the checkpoint has only weights."""
        if not has_safetensors(self.path, OPTIMIZER):
            return {}
        files = shard_files(self.path, OPTIMIZER)
        return {name: tensor for file in files for name, tensor in load_tensors(file).items()}

    def state(self) -> dict[str, Any]:
        """The training state: step, tokens, best validation loss."""
        path = self.path / STATE
        return load_json(path.read_text(encoding="utf-8")) if path.exists() else {}


def save_checkpoint(
    folder: Path,
    step: int,
    model: GPT,
    tokenizer: SavableTokenizer,
    *,
    state: Mapping[str, object],
    optimizer: Mapping[str, Tensor] | None = None,
    kind: str = "step",
) -> Checkpoint:
    """Write `folder/<kind>-<step>` atomically, replacing a checkpoint of the same name.

    Raises `CheckpointError` if it cannot be written.
    """
    path = checkpoint_path(folder, step, kind)
    with output_folder(path, ADVICE) as target:
        write_folder(target, model, tokenizer.eot_id)
        if optimizer is not None:
            save_tensors(target / OPTIMIZER, optimizer)
        complete_checkpoint(target, step, tokenizer, state)
    return Checkpoint(path)


def checkpoint_path(folder: Path, step: int, kind: str) -> Path:
    return folder / f"{kind}-{step:08d}"


def complete_checkpoint(
    folder: Path,
    step: int,
    tokenizer: SavableTokenizer,
    state: Mapping[str, object],
    hashed: Mapping[str, ManifestEntry] | None = None,
) -> None:
    """Add the tokenizer, the training state and, last, the manifest to a folder of weights.

    `hashed` are the entries of files whose hashes are known.
    """
    tokenizer.save(folder)
    _write_json(folder / STATE, {"format": FORMAT_VERSION, "step": step, **state})
    write_manifest(folder, hashed)


def write_manifest(folder: Path, hashed: Mapping[str, ManifestEntry] | None = None) -> None:
    """List every file of a folder, with its size and sha256, in MANIFEST.json; `find_corruption` verifies it.

    Files in `hashed` are not read.
    """
    entries = dict(hashed or {})
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in entries:
            entries[name] = manifest_entry(file)
    _write_json(folder / MANIFEST, {"format": FORMAT_VERSION, "files": dict(sorted(entries.items()))})


def manifest_entry(file: Path) -> ManifestEntry:
    """What the manifest says of a file."""
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def find_corruption(path: Path, *, contents: bool = True) -> str | None:
    """The first difference between a folder and its manifest, in a few words; None if there is none.

    Without `contents` only the names and sizes of the files are compared, and no file but the manifest is read.
    """
    try:
        manifest = load_json((path / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format"]
        entries = [(name, int(entry["bytes"]), entry["sha256"]) for name, entry in manifest["files"].items()]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"{MANIFEST} is not readable"
    if version != FORMAT_VERSION:
        return f"format {version} is not supported, only {FORMAT_VERSION}"
    for name, size, sha256 in entries:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
        if contents and sha256_of(file) != sha256:
            return f"{name} does not match its sha256"
    return None


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`; raises `CheckpointError` if it is corrupt."""
    problem = find_corruption(path)
    if problem:
        raise CheckpointError(f"checkpoint {path} is corrupt: {problem}. Use another one.")
    return Checkpoint(path)


def newest_checkpoint(folder: Path, kind: str = "step") -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint of a kind, and a notice for each newer one that is corrupt."""
    notices: list[str] = []
    for path in reversed(list_checkpoints(folder, kind)):
        problem = find_corruption(path)
        if problem is None:
            return Checkpoint(path), notices
        notices.append(f"checkpoint {path} is corrupt ({problem}); using the previous one")
    return None, notices


def first_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The valid checkpoint of the lowest step, whatever its kind, and a notice for each earlier one that is corrupt."""
    notices: list[str] = []
    paths = [path for kind in ("step", "best") for path in list_checkpoints(folder, kind)]
    for path in sorted(paths, key=lambda path: Checkpoint(path).step):
        problem = find_corruption(path)
        if problem is None:
            return Checkpoint(path), notices
        notices.append(f"checkpoint {path} is corrupt ({problem}); using the next one")
    return None, notices


def list_checkpoints(folder: Path, kind: str = "step") -> list[Path]:
    """The checkpoint folders of a kind, oldest first, corrupt ones included."""
    with contextlib.suppress(OSError):  # a reader may lack permission to rename folders
        recover_folders(folder)
    return find_checkpoints(folder, kind)


def find_checkpoints(folder: Path, kind: str = "step") -> list[Path]:
    """Like `list_checkpoints`, but changes nothing, so that a run can be read while another process trains it."""
    matches = [(match, path) for path in folder.glob(f"{kind}-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(matches, key=lambda pair: int(pair[0][2]))]


def rotate_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints of training; the newest valid one is always kept."""
    older = list_checkpoints(folder)[:-keep]
    if older:
        newest, _ = newest_checkpoint(folder)
        for path in older:
            if newest is None or path != newest.path:
                shutil.rmtree(path, ignore_errors=True)


def rotate_best(folder: Path, best: Path) -> None:
    """Remove the best checkpoints before `best`, except the first, and those after it.

    There are later ones if a run was killed, and resumed from an earlier step with other settings.
    """
    for path in list_checkpoints(folder, "best")[1:]:
        if path != best:
            shutil.rmtree(path, ignore_errors=True)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(dump_json(value, indent=2) + "\n", encoding="utf-8")
