"""A file that another process appends lines to: what was added since the last look, each line once."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

CHUNK_BYTES = 1 << 22
_CHECKED_BYTES = 64  # before the offset


@dataclass(frozen=True)
class Cursor:
    """A position after a line of a file, valid as long as the file is only appended to."""

    inode: int = 0
    offset: int = 0
    checksum: int = 0
    """CRC-32 of the bytes before the offset: a file system may give the inode of a removed file to a new one."""

    def __str__(self) -> str:
        return f"{self.inode}.{self.offset}.{self.checksum}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor that was written as text; raises `ValueError`."""
        numbers = text.split(".")
        if len(numbers) != 3 or not all(part.isascii() and part.isdecimal() and len(part) <= 20 for part in numbers):
            raise ValueError(f"{text!r} is not a cursor")
        return cls(*map(int, numbers))


@dataclass(frozen=True)
class AppendedLines:
    """The complete lines after a cursor."""

    lines: list[bytes]
    cursor: Cursor
    """After these lines."""
    reset: bool = False
    """The file was replaced or truncated, so the lines are those from its start; what was read before is void."""
    more: bool = False
    """There are further lines."""


def read_appended(path: Path, cursor: Cursor | None = None, max_bytes: int = CHUNK_BYTES) -> AppendedLines:
    """The lines after `cursor` (None: from the start), at most `max_bytes` of them; blank lines are left out.

    A last line without a line break is left for the next call, since it may still be written. A file that does not
    exist has no lines.
    """
    before = cursor or Cursor()
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return AppendedLines([], Cursor(), reset=before.offset > 0)
    with file:
        inode = os.fstat(file.fileno()).st_ino
        valid = before.inode == inode and _checksum(file, before.offset) == before.checksum
        start = before.offset if valid else 0
        file.seek(start)
        content = file.read(max_bytes)
        end = content.rfind(b"\n") + 1
        if not end and len(content) == max_bytes:  # no record is as long: it is skipped in pieces
            end = max_bytes
        lines = [line for line in content[:end].split(b"\n") if line.strip()]
        offset = start + end
        after = Cursor(inode, offset, _checksum(file, offset) or 0)
        return AppendedLines(lines, after, reset=not valid and before.offset > 0, more=len(content) == max_bytes)


def last_lines(path: Path, count: int, max_bytes: int = 1 << 16) -> list[bytes]:
    """The last complete lines of a file, at most `count`, within its last `max_bytes`; the latest is last.

    There are none in a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - max_bytes)
            file.seek(start)
            content = file.read(max_bytes)
    except OSError:
        return []
    lines = content.split(b"\n")[1 if start else 0 : -1]  # the first may be cut, the last is still written or empty
    return [line for line in lines if line.strip()][-count:]


def _checksum(file: BinaryIO, offset: int) -> int | None:
    """CRC-32 of the bytes before an offset; None if the file is shorter."""
    start = max(0, offset - _CHECKED_BYTES)
    file.seek(start)
    content = file.read(offset - start)
    return zlib.crc32(content) if len(content) == offset - start else None
