"""TensorFlow's checkpoints (format V2, "tensor bundles"), read without TensorFlow.

The index is a sorted table as LevelDB writes it: blocks of keys, each key without the prefix that it shares with the
one before, and a checksum behind every block. Its values say, in protobuf's wire format, where in the data files each
tensor lies. Sources: LevelDB's table_format.md; TensorFlow's tensor_bundle.proto and table_options.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tokenloom.errors import WeightsError
from tokenloom.weights.crc32c import crc32c, masked

MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5  # bytes; a block's trailer is its compression and its checksum
_DTYPES = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 3: np.dtype("<i4"), 9: np.dtype("<i8"), 19: np.dtype("<f2")}
_PIECE = 1 << 23  # bytes that are checked at a time


@dataclass(frozen=True)
class BundleTensor:
    """A tensor in a data file: its rows are read when asked for."""

    name: str
    file: Path
    offset: int
    dtype: np.dtype
    shape: Sequence[int]
    crc: int

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        row = prod(self.shape[1:])
        count = max(0, stop - start) * row
        values = np.fromfile(self.file, self.dtype, count, offset=self.offset + start * row * self.dtype.itemsize)
        if len(values) < count:
            raise WeightsError(f"{self.file} ends inside {self.name}. Fetch it again.")
        return torch.from_numpy(values).view(-1, *self.shape[1:])

    def without_leading_ones(self) -> BundleTensor:
        """The same numbers with (1, inputs, outputs) seen as (inputs, outputs)."""
        shape = list(self.shape)
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
        return BundleTensor(self.name, self.file, self.offset, self.dtype, tuple(shape), self.crc)

    def check(self) -> None:
        """Raises `WeightsError` unless the tensor's bytes are those that were written."""
        crc, read = 0, 0
        with self.file.open("rb") as file:
            file.seek(self.offset)
            while read < self.size and (piece := file.read(min(_PIECE, self.size - read))):
                crc, read = crc32c(piece, crc), read + len(piece)
        if read < self.size or masked(crc) != self.crc:
            raise WeightsError(f"{self.file}: the checksum of {self.name} does not match. Fetch it again.")


def open_bundle(prefix: Path) -> dict[str, BundleTensor]:
    """The tensors of the checkpoint `prefix`.index and `prefix`.data-*; none is read yet.

    Raises `WeightsError` where a file is missing, damaged, compressed, or says what this reader does not know.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    with _reading(index):
        return _open(prefix, index, index.read_bytes())


def check_index(index: Path) -> None:
    """Raises `WeightsError` unless every block of an index is whole; its data files need not be there."""
    with _reading(index):
        for _ in _table(index.read_bytes()):
            pass


@contextmanager
def _reading(index: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{index} cannot be read: {error.strerror}. Fetch all files again.") from None
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError, _Malformed) as error:
        raise WeightsError(f"{index} is damaged ({error or type(error).__name__}). Fetch it again.") from None


class _Malformed(Exception):
    """What the format forbids."""


def _open(prefix: Path, index: Path, data: bytes) -> dict[str, BundleTensor]:
    entries: dict[str, bytes] = {}
    previous = None
    for key, value in _table(data):
        if previous is not None and key <= previous:
            raise _Malformed("its keys are not in order")
        previous = key
        entries[key.decode("utf-8")] = value
    header = _fields(entries.pop("", b""))
    shards = _number(header, 1)
    if not 0 < shards <= 100_000:
        raise _Malformed(f"it names {shards} data files")
    if _number(header, 2) != 0:
        raise WeightsError(f"{index} was written with big-endian numbers, which are not supported. Convert it.")
    sizes: dict[int, int] = {}
    tensors = {}
    for name, value in entries.items():
        tensors[name] = tensor = _tensor(name, value, prefix, shards)
        shard = _number(_fields(value), 3)
        if shard not in sizes:
            sizes[shard] = _size(tensor.file)
        if tensor.offset + tensor.size > sizes[shard]:
            raise WeightsError(
                f"{tensor.file} has {sizes[shard]:,} bytes, but {name} ends at {tensor.offset + tensor.size:,}. "
                "Fetch it again."
            )
    return tensors


def _tensor(name: str, value: bytes, prefix: Path, shards: int) -> BundleTensor:
    fields = _fields(value)
    if 7 in fields:
        raise WeightsError(f"{name} is stored in slices, which is not supported. Save it whole.")
    dtype = _DTYPES.get(_number(fields, 1))
    if dtype is None:
        raise WeightsError(f"{name} has TensorFlow's dtype {_number(fields, 1)}, which is not supported. Use float32.")
    shape = tuple(_number(_fields(_bytes(dim)), 1) for dim in _fields(_bytes(fields.get(2, [b""])[-1])).get(2, []))
    shard, offset, size = (_number(fields, number) for number in (3, 4, 5))
    if any(length >= 1 << 63 for length in (*shape, offset, size)) or shard >= shards:
        raise _Malformed(f"{name} has impossible sizes")
    if prod(shape) * dtype.itemsize != size:
        raise _Malformed(f"{name} {shape} has {size:,} bytes")
    file = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
    return BundleTensor(name, file, offset, dtype, shape, _number(fields, 6))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        raise WeightsError(f"{file} is missing. Fetch all files of the checkpoint again.") from None


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a sorted table."""
    if len(data) < _FOOTER:
        raise _Malformed(f"it has only {len(data)} bytes")
    footer = data[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise _Malformed("it does not end as an index does")
    _, _, at = _handle(footer, 0)
    offset, size, _ = _handle(footer, at)
    for _, handle in _block(data, offset, size):
        yield from _block(data, *_handle(handle, 0)[:2])


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise _Malformed(f"a block ends at {end:,} of {len(data):,} bytes")
    compression, crc = struct.unpack_from("<BI", data, end)
    if masked(crc32c(data[offset : end + 1])) != crc:
        raise _Malformed(f"the checksum of the block at {offset:,} does not match")
    if compression:
        raise WeightsError("the index is compressed, which is not supported. Save it without compression.")
    (restarts,) = struct.unpack_from("<I", data, end - 4)
    last = end - 4 - 4 * restarts
    if last < offset:
        raise _Malformed(f"the block at {offset:,} has {restarts:,} restarts")
    key, at = b"", offset
    while at < last:
        shared, at = _varint(data, at)
        rest, at = _varint(data, at)
        length, at = _varint(data, at)
        if shared > len(key) or at + rest + length > last:
            raise _Malformed(f"an entry at {at:,} is too long")
        key = key[:shared] + data[at : at + rest]
        yield key, data[at + rest : at + rest + length]
        at += rest + length


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """A place in the file: where, how long; and where the next thing begins."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Malformed(f"a number at {at:,} does not end")


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protobuf message by number."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value, at = int.from_bytes(message[at : at + width], "little"), at + width
        elif kind == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise _Malformed(f"a field of kind {kind}")
        if at > len(message):
            raise _Malformed("a field reaches past its message")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[int | bytes]], number: int) -> int:
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _Malformed(f"field {number} is no number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Malformed("a message is a number")
    return value
