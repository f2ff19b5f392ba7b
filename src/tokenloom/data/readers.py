"""Files as pieces of documents, a megabyte at a time, every bad byte named by file and offset."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tokenloom.data import compression
from tokenloom.errors import DataError, MissingExtraError

_CHUNK_BYTES = 1 << 20
_LONGEST_RECORD = 1 << 26  # bytes: a JSON record must be held whole
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Document:
    """A text and where it came from."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document, in order; a long document arrives as several, the last with `ends_document`."""

    text: str
    source: str
    ends_document: bool


@dataclass
class Reading:
    """How texts are read, and what was met on the way."""

    text_key: str = "text"
    encoding_errors: Literal["strict", "replace"] = "strict"
    bytes_read: int = 0
    """Bytes of files read so far, compressed ones as they lie on disk."""
    replaced: int = 0
    """Faults that became U+FFFD: sequences that are not UTF-8, lone surrogates in JSON."""
    hashes: dict[str, str] = field(default_factory=dict)
    """sha256 of each source read to its end: of the file, or of the texts where there is no file."""


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file; that of a compression, behind it, left aside."""
    stem = path.with_suffix("") if path.suffix.lower() in compression.SUFFIXES else path
    return stem.suffix.lower()


def pieces_of(path: Path, name: str, reading: Reading) -> Iterator[Piece]:
    """The documents of a file; raises `DataError`, naming the place, for what cannot be read."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}. Check the path and its permissions.") from None
    with compression.decompressed(counted(file, name, reading), path.suffix.lower(), name) as content:
        yield from READABLE[kind_of(path)](content, name, reading, path)


def counted(file: Any, name: str, reading: Reading, *, keep_open: bool = False) -> BinaryIO:
    """The same file, counting and hashing what is read of it."""
    return io.BufferedReader(_Counted(file, name, reading, keep_open), _CHUNK_BYTES)  # type: ignore[return-value]


def text_pieces(file: BinaryIO, name: str, reading: Reading, _: Path | None = None) -> Iterator[Piece]:
    """A whole file as one document: a BOM dropped, line ends read as "\\n"."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    texts = (newlines.decode(text) for text in _decoded(file, name, reading))
    waiting = ""  # one piece behind, to know the last
    for text in texts:
        if text:
            if waiting:
                yield Piece(waiting, name, False)
            waiting = text
    yield Piece(waiting + newlines.decode("", final=True), name, True)


def text_of(record: Any, place: str, reading: Reading) -> str:
    """The text of a record, "" where it is null; `DataError` where there is none or it cannot be written as UTF-8."""
    key = reading.text_key
    if not isinstance(record, Mapping):
        raise DataError(f'{place} is {type(record).__name__}, not an object with a "{key}". Write one object a line.')
    if key not in record:
        raise DataError(f'{place} has no "{key}".{_other_keys(list(record), key)}')
    text = "" if record[key] is None else record[key]
    if not isinstance(text, str):
        raise DataError(f'"{key}" of {place} is {type(text).__name__}, not text.{_other_keys(list(record), key)}')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if reading.encoding_errors == "strict":
            raise DataError(
                f"{place} holds the lone surrogate {error.object[error.start]!a}, which no UTF-8 text has. "
                "Mend it, or pass --data.encoding-errors replace."
            ) from None
        reading.replaced += sum("\ud800" <= character <= "\udfff" for character in text)
        text = "".join(["\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text])
    return text


class _Counted(io.RawIOBase):
    """Counts and hashes a file that is read from its start to its end."""

    def __init__(self, file: Any, name: str, reading: Reading, keep_open: bool) -> None:
        self._file, self._name, self._reading, self._keep_open = file, name, reading, keep_open
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            size = self._file.readinto(buffer)
        except OSError as error:
            raise DataError(f"cannot read {self._name}: {error.strerror}. Check the disk and try again.") from None
        self._digest.update(buffer[:size])
        self._reading.bytes_read += size
        if size == 0:
            self._reading.hashes[self._name] = self._digest.hexdigest()
        return size

    def close(self) -> None:
        if not self._keep_open:
            self._file.close()
        super().close()


def _decoded(file: BinaryIO, name: str, reading: Reading) -> Iterator[str]:
    held, offset = b"", 0
    while chunk := file.read(_CHUNK_BYTES):
        data = held + chunk
        if offset == 0 and data.startswith(codecs.BOM_UTF8):
            data, offset = data[3:], 3
        text, used = _decode(data, name, offset, reading, final=False)
        held, offset = data[used:], offset + used
        yield text
    yield _decode(held, name, offset, reading, final=True)[0]


def _decode(data: bytes, name: str, offset: int, reading: Reading, *, final: bool) -> tuple[str, int]:
    """UTF-8 text and the number of bytes it took; `offset` is where the data stand in the file."""
    try:
        text, used = codecs.utf_8_decode(data, reading.encoding_errors, final)
    except UnicodeDecodeError as error:
        hint = (
            " It looks like UTF-16." if offset == 0 and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        )
        raise DataError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {offset + error.start:,}.{hint} "
            "Re-encode it, or pass --data.encoding-errors replace."
        ) from None
    if reading.encoding_errors == "replace":
        # What is U+FFFD in the text and was not in the file has been put there.
        reading.replaced += text.count("\ufffd") - data.count("\ufffd".encode(), 0, used)
    return text, used


def _jsonl_pieces(file: BinaryIO, name: str, reading: Reading, _: Path) -> Iterator[Piece]:
    """One document a line: the text under `reading.text_key` of a JSON object."""
    offset = 0
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_RECORD + 1), b""), start=1):
        place = f"{name} line {number:,}"
        if len(line) > _LONGEST_RECORD:
            raise DataError(
                f"{place} is longer than {_LONGEST_RECORD >> 20} MiB, and a record must fit in memory. "
                "Divide it, or pass its text as a .txt file."
            )
        record = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        text, _used = _decode(record, name, offset + len(line) - len(record), reading, final=True)
        offset += len(line)
        if text.strip():
            yield Piece(text_of(_json(text, place), place, reading), name, True)


def _json(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place} is not JSON: {error.msg} at column {error.colno:,}. Mend or remove that line."
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} cannot be read as JSON: {error}. Mend or remove that line.") from None


def _parquet_pieces(file: BinaryIO, name: str, reading: Reading, path: Path) -> Iterator[Piece]:
    """One document a row: the column `reading.text_key`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", f"reading {name}") from None
    number = 0
    with tempfile.TemporaryFile() as unfolded:
        table = _seekable(file, path, unfolded)
        try:
            # A buffer size makes it read pages as they are needed, not whole columns.
            parquet_file = parquet.ParquetFile(table, buffer_size=_CHUNK_BYTES)
            _refuse_unless_text(parquet_file.schema_arrow, name, reading.text_key)
            for batch in parquet_file.iter_batches(_ROWS_AT_ONCE, columns=[reading.text_key]):
                # As bytes: nothing has made sure that what is called a string is UTF-8.
                for value in batch.column(0).cast(pyarrow.large_binary()):
                    number += 1
                    text, _ = _decode(value.as_py() or b"", f"{name} row {number:,}", 0, reading, final=True)
                    yield Piece(text, name, True)
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise DataError(f"{name} is not a sound Parquet file: {reason}. Write or fetch it again.") from None


def _seekable(file: BinaryIO, path: Path, unfolded: Any) -> Any:
    """What Parquet can be read from, which begins at the end of a file; `file` is read once for its sha256."""
    if path.suffix.lower() in compression.SUFFIXES:
        shutil.copyfileobj(file, unfolded, _CHUNK_BYTES)
        unfolded.seek(0)
        return unfolded
    while file.read(_CHUNK_BYTES):
        pass
    return path


def _refuse_unless_text(schema: Any, name: str, key: str) -> None:
    from pyarrow import types

    if key not in schema.names:
        raise DataError(f'{name} has no column "{key}".{_other_keys(schema.names, key)}')
    kind = schema.field(key).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    checks = types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary
    if not any(check(kind) for check in checks):
        raise DataError(f'column "{key}" of {name} holds {kind}, not text.{_other_keys(schema.names, key)}')


def _other_keys(keys: Iterable[str], key: str) -> str:
    others = [str(other) for other in keys if other != key]
    if not others:
        return " Pass a file that has it."
    return f" It has: {', '.join(others[:8])}. Choose one with --data.text-key."


READABLE: dict[str, Callable[[BinaryIO, str, Reading, Path], Iterator[Piece]]] = {
    ".txt": text_pieces,
    ".md": text_pieces,
    ".jsonl": _jsonl_pieces,
    ".parquet": _parquet_pieces,
}
