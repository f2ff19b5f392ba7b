"""Copies of standard input and of pipes, which can be read only once: text is read several times."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from tokenloom.errors import DataError
from tokenloom.home import expand_home

STDIN = "-"
_COPY_BYTES = 1 << 20

Streams: TypeAlias = Mapping[str, BinaryIO]
"""Seekable copies by the names of their sources."""


@contextmanager
def copied_streams(names: Iterable[str], folder: Path | None = None) -> Generator[Streams]:
    """Copies, in unnamed temporary files in `folder`, of standard input ("-") and of the pipes among the names.

    Raises `DataError` if one cannot be read.
    """
    copies: dict[str, BinaryIO] = {}
    with ExitStack() as stack:
        for name in dict.fromkeys(names):
            if name != STDIN and not is_pipe(expand_home(name)):
                continue
            copy = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(dir=folder)))
            if name == STDIN:
                shutil.copyfileobj(_stdin(), copy, _COPY_BYTES)
            else:
                with _open(expand_home(name)) as pipe:
                    shutil.copyfileobj(pipe, copy, _COPY_BYTES)
            copies[name] = copy
        yield copies


def is_pipe(path: Path) -> bool:
    """Whether a path is a named pipe, or a pipe of the shell such as <(command)."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise DataError('there is no standard input ("-"). Pass a file instead.')
    return sys.stdin.buffer


def _open(pipe: Path) -> BinaryIO:
    try:
        return pipe.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {pipe}: {error.strerror}. Check its permissions.") from None
