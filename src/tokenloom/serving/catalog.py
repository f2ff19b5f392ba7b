"""The models that can be served, by the ids that clients name: runs with their checkpoints, and other models.

Every answer is read from the folders at that moment, so that a run can be followed while another process trains it.
Nothing in a run is changed or locked.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenloom.run_folder import RunFolder
from tokenloom.serving.errors import ModelNotFound
from tokenloom.weights.checkpoint import MANIFEST, Checkpoint, find_checkpoints, find_corruption
from tokenloom.weights.folder import CONFIG
from tokenloom.weights.reference import find_weights, split_reference

_NAMED_IN_ERRORS = 10  # ids


@dataclass(frozen=True)
class ModelRef:
    """One set of weights, and the id by which a client named it."""

    id: str
    """As listed: RUN, its newest checkpoint at that moment; RUN@best; RUN@first; RUN@step-N; or the name of a model."""
    name: str
    """The id with the step: what a reply states."""
    path: Path
    run: str | None
    """The id of the run; None for a model that is not in a run."""
    step: int | None
    created: int
    """When the weights were written, in seconds since 1970."""


@dataclass(frozen=True)
class Version:
    """A folder or file of weights at one moment: a checkpoint that replaces one of the same name is another version."""

    path: Path
    inode: int
    changed: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Version:
        """The version that is on disk now; raises `OSError` if it is gone."""
        status = _dated_file(path).stat()
        return cls(path, status.st_ino, status.st_mtime_ns, status.st_size)


class Catalog:
    """The ids of the models that were named, and of all runs in a folder.

    The id of a run or of a model is the name of its folder or file, with the folders above it if another one has that
    name. It stays the same as long as the server runs. Raises `CheckpointError` for a model that does not exist.
    Thread-safe.
    """

    def __init__(self, models: Sequence[str | Path], runs: Path | None) -> None:
        self._runs_folder = runs
        self._lock = threading.Lock()
        self._ids: dict[Path, str] = {}
        self._valid: dict[Version, bool] = {}
        self._named = [self._entry_of(model) for model in models]
        self._last_found: list[_Entry] = []

    def list(self) -> list[ModelRef]:
        """Every model and checkpoint that is on disk: those that were named first, then the runs, newest first."""
        refs = (ref for entry in self._entries() for ref in self._refs(entry))
        return list({ref.id: ref for ref in refs}.values())

    def resolve(self, id: str | None) -> ModelRef:
        """The model with this id, or the first of the list for None; raises `ModelNotFound`."""
        if id is None:
            refs = itertools.chain.from_iterable(map(self._refs, itertools.chain(self._named, self._found())))
            first = next(refs, None)
            if first is None:
                raise ModelNotFound("there is no model yet. Train one, or wait for the first checkpoint of a run.")
            return first
        # Looking at the runs that were found before is enough for most requests, and much faster if there are many.
        for entries in (self._known, self._entries):
            # The id of a run may contain "@step-3" itself, so all runs that it begins with are looked at.
            candidates = [entry for entry in entries() if id == entry.id or id.startswith(f"{entry.id}@")]
            found = [ref for entry in candidates for ref in self._refs(entry)]
            for ref in found:
                if ref.id == id:
                    return ref
        remaining = [ref.id for ref in found] or [ref.id for ref in self.list()]
        raise ModelNotFound(f'there is no model "{id}". {_available(remaining)}')

    def runs(self) -> Mapping[str, RunFolder]:
        """The runs by their ids, those without a checkpoint included, in the order of the list."""
        return {entry.id: entry.run for entry in self._entries() if entry.run is not None}

    def exclude(self, version: Version) -> None:
        """Do not list a checkpoint again whose content is not what its manifest says."""
        self._valid[version] = False

    def _entry_of(self, model: str | Path) -> _Entry:
        path, selector = split_reference(model)
        run = RunFolder(path.resolve())
        if path.is_dir() and (run.has_files() or run.checkpoints.is_dir() or run.lock_file.exists()):
            return _Entry(self._id(run.path), run.path, run, selector)
        weights = find_weights(model)[0].resolve()
        run = RunFolder.of_checkpoint(weights)
        if run is not None:
            return _Entry(self._id(run.path), run.path, run, f"step-{Checkpoint(weights).step}")
        return _Entry(self._id(weights, name=None if path.exists() else str(model)), weights, None, "")

    def _entries(self) -> list[_Entry]:
        """What is served now: the runs in the folder may have changed."""
        return [*self._named, *self._found()]

    def _known(self) -> list[_Entry]:
        """What was served when the folder was last looked at."""
        return [*self._named, *self._last_found]

    def _found(self) -> Iterator[_Entry]:
        """The runs in the folder now, without those that were named; read when the first one is asked for."""
        try:
            paths = sorted(self._runs_folder.iterdir()) if self._runs_folder is not None else []
        except OSError:  # it does not exist yet
            paths = []
        runs = [run for path in paths if (run := RunFolder(path.resolve())).has_files()]
        runs.sort(key=lambda run: _seconds(run.config_file), reverse=True)
        named = {entry.path for entry in self._named if not entry.selector}
        with self._lock:
            self._last_found = [_Entry(self._id(run.path), run.path, run, "") for run in runs if run.path not in named]
        yield from self._last_found

    def _id(self, path: Path, name: str | None = None) -> str:
        """A new id, or the one that the path got before."""
        if path not in self._ids:
            taken = set(self._ids.values())
            self._ids[path] = next(id for id in _names(path, name) if id not in taken)
        return self._ids[path]

    def _refs(self, entry: _Entry) -> list[ModelRef]:
        if entry.run is None:
            exists = entry.path.exists()
            return [ModelRef(entry.id, entry.id, entry.path, None, None, _seconds(entry.path))] if exists else []
        steps, best = (self._checkpoints(entry.run, kind) for kind in ("step", "best"))
        selected: dict[str, int] = {}
        if steps:
            selected[""] = max(steps)
        if best:
            selected["best"] = max(best)
        paths = {**best, **steps}
        if paths:
            selected["first"] = min(paths)
        selected |= {f"step-{step}": step for step in sorted(paths, reverse=True)}
        return [
            ModelRef(
                id=f"{entry.id}@{selector}" if selector else entry.id,
                name=f"{entry.id}@step-{step}",
                path=best[step] if selector == "best" else paths[step],
                run=entry.id,
                step=step,
                created=_seconds(best[step] if selector == "best" else paths[step]),
            )
            for selector, step in selected.items()
            if entry.selector in ("", selector)
        ]

    def _checkpoints(self, run: RunFolder, kind: str) -> dict[int, Path]:
        """The complete checkpoints of a kind by their steps."""
        return {Checkpoint(path).step: path for path in find_checkpoints(run.checkpoints, kind) if self._is_valid(path)}

    def _is_valid(self, path: Path) -> bool:
        """Whether the files of a checkpoint have the sizes in its manifest; checked once for each version."""
        try:
            version = Version.of(path)
            if version not in self._valid:
                self._valid[version] = find_corruption(path, contents=False) is None
        except OSError:  # it was removed meanwhile
            return False
        return self._valid[version]


@dataclass(frozen=True)
class _Entry:
    """A run or another model, and which of its checkpoints are listed: "" for all, "best", "first" or "step-N"."""

    id: str
    path: Path
    run: RunFolder | None
    selector: str


def _names(path: Path, name: str | None) -> Iterator[str]:
    """Ids for a path: its name, its name with one, two and more folders above it, then numbered."""
    parts = [part for part in path.parts if part != path.anchor] or ["model"]
    names = [name or parts[-1], *("/".join(parts[-count:]) for count in range(2, len(parts) + 1))]
    for id in names:
        yield _printable(id)
    number = 2
    while True:
        yield _printable(f"{names[0]}-{number}")
        number += 1


def _printable(name: str) -> str:
    """A name that JSON in UTF-8 can hold: bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _dated_file(path: Path) -> Path:
    """The file that is written last, or replaced, when the weights change."""
    return next((file for name in (MANIFEST, CONFIG) if (file := path / name).is_file()), path)


def _seconds(path: Path) -> int:
    try:
        return int(_dated_file(path).stat().st_mtime)
    except OSError:  # it was removed meanwhile
        return 0


def _available(ids: Sequence[str]) -> str:
    if not ids:
        return "None is served yet."
    more = f" and {len(ids) - _NAMED_IN_ERRORS:,} more" if len(ids) > _NAMED_IN_ERRORS else ""
    return f"Available: {', '.join(ids[:_NAMED_IN_ERRORS])}{more}."
