"""The folder of a search: its files by name.

SEARCH/search.json     what is searched, and the trials so far, ranked
SEARCH/trials.jsonl    the journal of Optuna: every suggestion and every evaluation, from which a search resumes
SEARCH/best.toml       the configuration of the best trial
SEARCH/search.svg      trials over time, and their values against each setting
SEARCH/search.lock     locked while a process runs the search
SEARCH/trial-001/      a run for each trial
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenloom.errors import CheckpointError
from tokenloom.run_folder import RunFolder
from tokenloom.storage import write_bytes


@dataclass(frozen=True)
class SearchFolder:
    """The folder of a search."""

    path: Path

    @property
    def record_file(self) -> Path:
        return self.path / "search.json"

    @property
    def journal_file(self) -> Path:
        return self.path / "trials.jsonl"

    @property
    def best_config_file(self) -> Path:
        return self.path / "best.toml"

    @property
    def plot_file(self) -> Path:
        return self.path / "search.svg"

    @property
    def lock_file(self) -> Path:
        return self.path / "search.lock"

    def run(self, number: int) -> RunFolder:
        """The run of a trial, the first one being number 1."""
        return RunFolder(self.path / f"trial-{number:03}")

    def is_unused(self) -> bool:
        """Whether a new search can be written here: there is nothing, or a search that ended before its first trial."""
        if not self.path.exists():
            return True
        names = {self.lock_file.name, self.journal_file.name, *(path.name for path in self._journal_locks())}
        return self.path.is_dir() and all(path.name in names for path in self.path.iterdir())

    def record(self) -> dict[str, Any] | None:
        """The content of search.json; None if there is none. Raises `CheckpointError` if it is invalid."""
        if not self.record_file.is_file():
            return None
        try:
            return json.loads(self.record_file.read_bytes())
        except ValueError as error:
            raise CheckpointError(f"{self.record_file} is invalid: {error}. Choose another --out.") from None

    def mend_journal(self) -> None:
        """Remove an incomplete last line, and the lock of a process that was killed while it wrote."""
        for lock in self._journal_locks():
            lock.unlink()
        if self.journal_file.is_file():
            content = self.journal_file.read_bytes()
            complete = content[: content.rfind(b"\n") + 1]
            if complete != content:
                write_bytes(self.journal_file, complete)

    def _journal_locks(self) -> list[Path]:
        return list(self.path.glob(f"{self.journal_file.name}.lock*"))

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the lock of the search, which the operating system releases when the process ends.

        Raises `CheckpointError` if another process holds it.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"another process runs the search in {self.path}. Wait for it, or stop it.") from None
        try:
            yield
        finally:
            with suppress(OSError):
                self.lock_file.unlink()
            lock.release()
            with suppress(OSError):
                self.path.rmdir()  # fails unless it is empty
