"""Readers of the supported file formats: a file in, parts of documents out, in bounded memory."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from tokenloom.data import decompression
from tokenloom.data.documents import DocumentPart, ReadState, decode_utf8, record_text
from tokenloom.data.parquet_reader import read_parquet
from tokenloom.errors import DataError
from tokenloom.strict_json import load_json

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES = 1 << 20
_MAX_RECORD_BYTES = 1 << 26  # a JSON record is parsed in memory

Reader: TypeAlias = Callable[[BinaryIO, str, ReadState, Path], Iterator[DocumentPart]]
"""Called with the decompressed content, the file's name for errors, the state to update, and the file's path."""


def format_suffix(path: Path) -> str:
    """The suffix that decides the format: ".txt" for "book.txt" and for "book.txt.gz"."""
    uncompressed = path.with_suffix("") if path.suffix.lower() in decompression.SUFFIXES else path
    return uncompressed.suffix.lower()


def read_file(path: Path, name: str, state: ReadState) -> Iterator[DocumentPart]:
    """The documents of a file in a supported format; raises `DataError`, naming the location, if it is invalid."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}. Check the path and its permissions.") from None
    with decompression.decompressed(hashing_stream(file, name, state), path.suffix.lower(), name) as content:
        yield from READERS[format_suffix(path)](content, name, state, path)


def hashing_stream(file: BinaryIO, name: str, state: ReadState, *, close: bool = True) -> BinaryIO:
    """The same file as a stream that counts and hashes what is read; closing it closes the file only if `close`."""
    return io.BufferedReader(_HashingStream(file, name, state, close), _READ_BYTES)


def read_text(file: BinaryIO, name: str, state: ReadState, _: Path | None = None) -> Iterator[DocumentPart]:
    r"""A whole file as one document, without a byte order mark, line ends converted to "\n"."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    texts = (newlines.decode(text) for text in _decode_stream(file, name, state))
    previous = ""  # yielded one part late, because the last part has to be marked
    for text in texts:
        if text:
            if previous:
                yield DocumentPart(previous, name, False)
            previous = text
    yield DocumentPart(previous + newlines.decode("", final=True), name, True)


def decode_text(data: bytes, name: str) -> str:
    """The text that `read_text` reads from a file with this content; raises `DataError` if it is not UTF-8."""
    return "".join(part.text for part in read_text(io.BytesIO(data), name, ReadState(advice="Re-encode it.")))


class _HashingStream(io.RawIOBase):
    """Counts and hashes a file that is read from start to end."""

    def __init__(self, file: BinaryIO, name: str, state: ReadState, close: bool) -> None:
        self._file, self._name, self._state, self._close = file, name, state, close
        self._sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer)
        try:
            data = self._file.read(len(target))
        except OSError as error:
            raise DataError(f"cannot read {self._name}: {error.strerror}. Check the disk and try again.") from None
        target[: len(data)] = data
        self._sha256.update(data)
        self._state.bytes_read += len(data)
        if not data:
            self._state.sha256[self._name] = self._sha256.hexdigest()
        return len(data)

    def close(self) -> None:
        if self._close:
            self._file.close()
        super().close()


def _decode_stream(file: BinaryIO, name: str, state: ReadState) -> Iterator[str]:
    pending, offset = b"", 0
    while data := file.read(_READ_BYTES):
        data = pending + data
        if offset == 0:
            _refuse_utf16(data, name)
        if offset == 0 and data.startswith(codecs.BOM_UTF8):
            data, offset = data[3:], 3
        text, size = decode_utf8(data, name, offset, state, final=False)
        pending, offset = data[size:], offset + size
        yield text
    yield decode_utf8(pending, name, offset, state, final=True)[0]


def _refuse_utf16(start: bytes, name: str) -> None:
    """Raise `DataError` for the start of a UTF-16 file, in which no character is valid UTF-8 that could be replaced."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{name} is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8.", topic="encoding")


def _read_jsonl(file: BinaryIO, name: str, state: ReadState, _: Path) -> Iterator[DocumentPart]:
    """One document per line: the text under the text key of a JSON object."""
    offset = 0
    for number, line in enumerate(iter(lambda: file.readline(_MAX_RECORD_BYTES + 1), b""), start=1):
        location = f"{name} line {number:,}"
        if len(line) > _MAX_RECORD_BYTES:
            raise DataError(
                f"{location} is longer than {_MAX_RECORD_BYTES >> 20} MiB, the limit for one record. "
                "Split it, or pass its text as a .txt file."
            )
        if number == 1:
            _refuse_utf16(line, name)
        record = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        text, _size = decode_utf8(record, name, offset + len(line) - len(record), state, final=True)
        offset += len(line)
        if text.strip():
            yield DocumentPart(record_text(_parse_json(text, location), location, state), name, True)


def _parse_json(line: str, location: str) -> object:
    try:
        return load_json(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{location} is not valid JSON: {error.msg} at column {error.colno:,}. Fix or remove the line."
        ) from None
    except ValueError as error:
        raise DataError(f"{location} cannot be parsed as JSON: {error}. Fix or remove the line.") from None


READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".jsonl": _read_jsonl,
    ".parquet": read_parquet,
}
