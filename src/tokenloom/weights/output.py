"""Output files and folders, written atomically; a failed write raises `CheckpointError` with advice."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tokenloom.errors import CheckpointError
from tokenloom.storage import atomic_file, atomic_folder

ADVICE = "Free some space or choose another path."


@contextmanager
def output_folder(path: Path, advice: str = ADVICE) -> Generator[Path]:
    """A temporary folder to fill; on success it replaces `path`."""
    with output_errors(path, advice), atomic_folder(path) as folder:
        yield folder


@contextmanager
def output_errors(path: Path, advice: str = ADVICE) -> Generator[None]:
    """Raise `CheckpointError`, with advice, for a failed write that belongs to `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        raise _failed(path, error, advice) from error


@contextmanager
def output_file(path: Path) -> Generator[Path]:
    """The name of a temporary file to write; on success it replaces `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            yield file
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise _failed(path, error, ADVICE) from error


def _failed(path: Path, error: Exception, advice: str) -> CheckpointError:
    cause = error if isinstance(error, OSError) else error.__context__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else error
    return CheckpointError(f"could not write {path}: {reason}. {advice}")
