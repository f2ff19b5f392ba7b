"""Standard streams: what is written always fits their encoding, and a stream that fails is handled by its purpose.

Results go to stdout: if they cannot be written, the command fails. Messages go to stderr: if they cannot be written,
the command continues, because a run is worth more than its progress line.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from tokenloom.errors import OutputError
from tokenloom.reporting.terminal import UNENCODABLE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def standard_streams() -> Generator[None]:
    """A context in which stdout and stderr can be written, also where they are closed, and take every character."""
    _reserve_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _opened(sys.stdout, _Results), _opened(sys.stderr, _Messages)
    try:
        yield
    finally:
        for stream, replaced in zip((sys.stdout, sys.stderr), before, strict=True):
            with suppress(OutputError):  # reported when the command flushed its results
                stream.flush()
            if replaced is None:
                stream.close()
        sys.stdout, sys.stderr = before


def _reserve_closed_descriptors() -> None:
    """Open the null device as 0, 1 and 2 if they are closed: otherwise the next file that is opened gets the number.

    What is meant for stderr would then be written into that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _opened(stream: TextIO | None, kind: type[_Output]) -> TextIO:
    if stream is None:  # closed when the process was started
        return open(os.devnull, "w", encoding="utf-8", errors=UNENCODABLE)
    buffer = getattr(stream, "buffer", None)
    if buffer is None:  # not a file, such as the output of a notebook
        return stream
    raw = kind(getattr(buffer, "raw", buffer))
    line_buffering = bool(getattr(stream, "line_buffering", False))
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=UNENCODABLE, line_buffering=line_buffering
    )


class _Output(io.RawIOBase):
    """Writes to another stream, and discards everything after the first failure."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._has_failed = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._has_failed:
            try:
                while (written := self._stream.write(data)) is None:  # non-blocking and full
                    select.select([], [self._stream], [])
                return written
            except (OSError, ValueError) as error:  # ValueError: the stream was closed
                self._has_failed = True
                self.failed(error)
        return memoryview(data).nbytes

    def failed(self, error: Exception) -> None:
        raise NotImplementedError


class _Results(_Output):
    def failed(self, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"cannot write to standard output: {reason}. Write to another file or pipe.") from error


class _Messages(_Output):
    def failed(self, error: Exception) -> None:
        pass
