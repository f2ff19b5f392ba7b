"""The folder of a run: every file in it by name, and the only readers and writers of those files.

RUN/config.toml        the resolved configuration
RUN/identity.json      what must not change when the run is resumed; a folder without it is not a run
RUN/launch.json        the torchrun command that trains the run, if any: processes that it restarts resume the run
RUN/plan.json          size, cost and settings, as known when training started or was resumed
RUN/baselines.json     results of compressors and token frequencies on the validation text
RUN/metrics.jsonl      one metrics record per line
RUN/samples.jsonl      one generated sample per line
RUN/checkpoints/       step-00001000, …, and weights only: best-00000800, and best-00000100 of the first evaluation
RUN/summary.json       the headline figures of a finished run
RUN/run.lock           locked while a process trains the run; contains its process id
RUN/report.html, RUN/loss.png, RUN/loss.pdf, RUN/tensorboard/
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from tokenloom.config import Config
from tokenloom.config_files import read_toml
from tokenloom.errors import CheckpointError
from tokenloom.metrics import MetricsRecord
from tokenloom.run_records import Baselines, RunIdentity, RunLaunch, RunPlan, RunSummary, SampleRecord
from tokenloom.saved_config import saved_config
from tokenloom.storage import write_json, write_text
from tokenloom.strict_json import dump_json, load_json

CHECKPOINTS = "checkpoints"

T = TypeVar("T")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run. A file that does not exist reads as None or an empty list.

    Readers raise `CheckpointError`, naming the file, if its content is invalid.
    """

    path: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> Self | None:
        """The run that a checkpoint folder belongs to; None if it is not in a run. The identity is not validated."""
        folder = checkpoint.resolve().parent
        run = cls(folder.parent)
        return run if folder.name == CHECKPOINTS and run.has_files() else None

    @classmethod
    def new(cls, parent: Path, name: str) -> Self:
        """Create a folder in `parent`: `name`, or `name-2`, `name-3` and so on if that exists.

        Concurrent processes get different folders.
        """
        parent.mkdir(parents=True, exist_ok=True)
        numbered = (parent / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
        return cls(next(path for path in numbered if _make_folder(path)))

    @classmethod
    def newest(cls, parent: Path) -> Self | None:
        """The run in `parent` that was started or resumed last; None if there is none."""
        runs = [run for path in parent.glob("*") if (run := cls(path)).is_run()]
        return max(runs, key=lambda run: run.config_file.stat().st_mtime, default=None)

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def identity_file(self) -> Path:
        return self.path / "identity.json"

    @property
    def launch_file(self) -> Path:
        return self.path / "launch.json"

    @property
    def plan_file(self) -> Path:
        return self.path / "plan.json"

    @property
    def baselines_file(self) -> Path:
        return self.path / "baselines.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def lock_file(self) -> Path:
        return self.path / "run.lock"

    @property
    def loss_plots(self) -> tuple[Path, Path]:
        """The loss plot as PNG and as PDF."""
        return self.path / "loss.png", self.path / "loss.pdf"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def tensorboard(self) -> Path:
        """The folder of the TensorBoard events."""
        return self.path / "tensorboard"

    def is_run(self) -> bool:
        """Whether the folder has a configuration and a valid identity, as every run has."""
        try:
            return self.has_files() and self.identity() is not None
        except CheckpointError:
            return False

    def has_files(self) -> bool:
        """Whether the folder has a configuration and an identity, which is not validated."""
        return self.config_file.is_file() and self.identity_file.is_file()

    def is_unused(self) -> bool:
        """Whether a new run can be written here: the folder does not exist, or contains at most a lock file."""
        if not self.path.exists():
            return True
        return self.path.is_dir() and all(path == self.lock_file for path in self.path.iterdir())

    def is_finished(self) -> bool:
        """Whether the final evaluation is done: the run has a summary and, written after it, a report."""
        return self.summary_file.is_file() and self.report_file.is_file()

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the lock of the run, so that no other process trains it; creates the folder if it does not exist.

        The operating system releases the lock when the process ends, so the lock file of a killed run has no effect. A
        folder that is empty afterwards is removed. Raises `CheckpointError` if another process holds the lock.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"{self.path} is being trained by {self._lock_holder()}. Wait until it has finished, or stop it.",
                topic="run in use",
            ) from None
        try:
            with suppress(OSError):  # Windows does not permit access to a locked file
                self.lock_file.write_text(str(os.getpid()))  # in place: replacing the file would drop the lock
            yield
        finally:
            with suppress(OSError):
                self.lock_file.unlink()
            lock.release()
            with suppress(OSError):
                self.path.rmdir()  # fails unless it is empty

    def refuse_if_locked(self) -> None:
        """Raise `CheckpointError` if another process holds the lock; a folder without a lock file is not changed."""
        if self.lock_file.exists():
            with self.locked():
                pass

    def training_process(self) -> int | None:
        """The process that trains the run; None if there is none on this machine. The lock is not touched.

        A process that is younger than the lock file has only the same number as the one that wrote it.
        """
        import psutil

        try:
            number, written = int(self.lock_file.read_text()), self.lock_file.stat().st_mtime
            process = psutil.Process(number)
            runs = process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + 1
        except (OSError, ValueError, psutil.Error):
            return None
        return number if runs else None

    def _lock_holder(self) -> str:
        try:
            return f"process {int(self.lock_file.read_text())}"
        except (OSError, ValueError):  # it is about to write the id, or has just finished
            return "another process"

    def config(self) -> Config:
        """The configuration that the run was started or last resumed with; raises `CheckpointError` if it has none."""
        if not self.config_file.is_file():
            raise CheckpointError(
                f"{self.path} is not a run: it has no {self.config_file.name}. Pass a run of tokenloom train."
            )
        return saved_config(read_toml(self.config_file))

    def identity(self) -> RunIdentity | None:
        return _read_object(self.identity_file, RunIdentity)

    def launch(self) -> RunLaunch | None:
        return _read_object(self.launch_file, RunLaunch)

    def plan(self) -> RunPlan | None:
        return _read_object(self.plan_file, RunPlan)

    def baselines(self) -> Baselines | None:
        return _read_object(self.baselines_file, Baselines)

    def summary(self) -> RunSummary | None:
        return _read_object(self.summary_file, RunSummary)

    def metrics(self) -> list[MetricsRecord]:
        return list(read_jsonl(self.metrics_file, MetricsRecord.from_json))

    def samples(self) -> list[SampleRecord]:
        return list(read_jsonl(self.samples_file, TypeAdapter(SampleRecord).validate_python))

    def write_config(self, config: Config) -> None:
        write_text(self.config_file, config.to_toml())

    def write_identity(self, identity: RunIdentity) -> None:
        write_json(self.identity_file, asdict(identity))

    def write_launch(self, launch: RunLaunch) -> None:
        write_json(self.launch_file, asdict(launch))

    def write_plan(self, plan: RunPlan) -> None:
        write_json(self.plan_file, asdict(plan))

    def write_baselines(self, baselines: Baselines) -> None:
        write_json(self.baselines_file, asdict(baselines))

    def write_summary(self, summary: RunSummary) -> None:
        write_json(self.summary_file, summary.to_json())

    def remove_results(self) -> None:
        """Remove summary and report of a finished run that is resumed: their figures are no longer final."""
        self.report_file.unlink(missing_ok=True)
        self.summary_file.unlink(missing_ok=True)


class JsonlWriter:
    """Appends one JSON object per line and flushes each, so that a run can be followed while it trains."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: object) -> None:
        self._file.write(dump_json(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_jsonl(path: Path, parse: Callable[[dict[str, object]], T]) -> Iterator[T]:
    """The parsed objects of a JSONL file; an incomplete last line, left by a killed process, is skipped.

    Raises `CheckpointError`, naming the line, if any other line is not a JSON object or `parse` raises `ValueError`.
    """
    for number, (line, is_last) in enumerate(_lines(path), start=1):
        try:
            yield parse(_object(line))
        except ValueError as error:
            if is_last and not line.endswith(b"\n"):
                return
            raise CheckpointError(f"{path}, line {number}, is invalid: {_reason(error)}. Remove that line.") from None


def truncate_jsonl(path: Path, step: int) -> None:
    """Keep the lines up to `step`, unchanged; the file is created empty if it does not exist.

    A resumed run writes the records after its last checkpoint again.
    """
    kept: list[str] = []
    for line, _ in _lines(path) if step > 0 else ():
        try:
            recorded = _object(line).get("step")
        except ValueError:
            continue
        if not isinstance(recorded, int) or recorded > step:
            continue
        kept.append(line.decode("utf-8").rstrip("\n"))
    write_text(path, "".join(f"{line}\n" for line in kept))


def _make_folder(path: Path) -> bool:
    """Create a folder; returns False if the path exists already."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def _lines(path: Path) -> list[tuple[bytes, bool]]:
    """The non-empty lines of a file, each with whether it is the last one."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    filled = [line for line in lines if line.strip()]
    return [(line, number == len(filled)) for number, line in enumerate(filled, start=1)]


def _read_object(path: Path, kind: type[T]) -> T | None:
    if not path.exists():
        return None
    try:
        return TypeAdapter(kind).validate_python(_object(path.read_bytes()))
    except ValueError as error:
        raise CheckpointError(f"{path} is invalid: {_reason(error)}. Restore it, or remove the file.") from None


def _object(text: bytes) -> dict[str, object]:
    value: object = load_json(text)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return cast("dict[str, object]", value)


def _reason(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
