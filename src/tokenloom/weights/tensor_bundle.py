"""TensorFlow checkpoints (format V2, "tensor bundles"), read without TensorFlow.

The index is a sorted table in LevelDB's format: blocks of prefix-compressed keys, each block followed by a checksum.
Its values are protobuf messages that locate each tensor in the data files. Sources: LevelDB's table_format.md;
TensorFlow's tensor_bundle.proto and table_options.h.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from tokenloom.errors import WeightsError

MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5  # bytes; a block's trailer is its compression type and its checksum
_DTYPES: Mapping[int, np.dtype[Any]] = {
    number: np.dtype(name) for number, name in ((1, "<f4"), (2, "<f8"), (3, "<i4"), (9, "<i8"), (19, "<f2"))
}
# Field numbers of BundleHeaderProto, BundleEntryProto, and the dimensions in TensorShapeProto.
_NUM_SHARDS, _ENDIANNESS = 1, 2
_DTYPE, _SHAPE, _SHARD_ID, _OFFSET, _SIZE, _CRC32C, _SLICES = range(1, 8)
_DIM, _DIM_SIZE = 2, 1
ADVICE = "Delete it and download it again."
_CHUNK = 1 << 23  # bytes that are verified at a time


@dataclass(frozen=True)
class BundleTensor:
    """A tensor in a data file, whose rows are read on demand."""

    name: str
    file: Path
    offset: int
    dtype: np.dtype[Any]
    shape: Sequence[int]
    masked_crc: int

    @property
    def size(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        row = prod(self.shape[1:])
        count = max(0, stop - start) * row
        values = np.fromfile(self.file, self.dtype, count, offset=self.offset + start * row * self.dtype.itemsize)
        if len(values) < count:
            raise WeightsError(f"{self.file} ends inside {self.name}. {ADVICE}")
        return torch.as_tensor(values).view(-1, *self.shape[1:])

    def without_leading_ones(self) -> BundleTensor:
        """A view of shape (inputs, outputs) for a stored shape of (1, inputs, outputs)."""
        shape = list(self.shape)
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
        return replace(self, shape=tuple(shape))

    def verify(self) -> None:
        """Raises `WeightsError` if the tensor's bytes do not match their checksum."""
        crc, read = 0, 0
        with self.file.open("rb") as file:
            file.seek(self.offset)
            while read < self.size and (chunk := file.read(min(_CHUNK, self.size - read))):
                crc, read = crc32c(chunk, crc), read + len(chunk)
        if read < self.size or masked(crc) != self.masked_crc:
            raise WeightsError(f"{self.file}: the checksum of {self.name} does not match. {ADVICE}")


def crc32c(data: bytes, previous: int = 0) -> int:
    """The CRC-32C of `data`, which follows data whose CRC-32C is `previous`."""
    return google_crc32c.extend(previous, data)  # pyright: ignore - the package has no types


def masked(crc: int) -> int:
    """A CRC-32C as LevelDB and TensorFlow store it: rotated and offset, because data may itself contain CRCs."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def open_bundle(prefix: Path, data_file: Path | None = None) -> dict[str, BundleTensor]:
    """The tensors of the checkpoint `prefix`.index and `prefix`.data-*, read lazily.

    `data_file` is the only data file, if it has another name. Raises `WeightsError` if a file is missing, corrupt or
    compressed, or uses an unsupported feature.
    """
    index = prefix.with_name(f"{prefix.name}.index")
    with _index_errors(index):
        tensors = _tensors(prefix, index)
        if data_file is not None:
            tensors = {name: replace(tensor, file=data_file) for name, tensor in tensors.items()}
        _check_sizes(tensors.values())
        return tensors


def read_index(index: Path) -> dict[str, BundleTensor]:
    """The tensors that an index lists, with every block verified, without opening data files; raises `WeightsError`."""
    with _index_errors(index):
        return _tensors(index.with_suffix(""), index)


def verify_message(file: Path) -> None:
    """Raise `WeightsError` if a file is not a protobuf message, as far as that can be seen from its fields."""
    with _index_errors(file):
        if not _fields(file.read_bytes()):
            raise _MalformedIndexError("it is empty")


@contextmanager
def _index_errors(index: Path) -> Generator[None]:
    """Convert what reading an index raises to `WeightsError`."""
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{index} cannot be read: {error.strerror}. Download all files again.") from None
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError, _MalformedIndexError) as error:
        raise WeightsError(f"{index} is corrupt ({error or type(error).__name__}). {ADVICE}") from None


class _MalformedIndexError(Exception):
    """An index that violates the format."""


def _tensors(prefix: Path, index: Path) -> dict[str, BundleTensor]:
    entries: dict[str, bytes] = {}
    previous = None
    for key, value in _table(index.read_bytes()):
        if previous is not None and key <= previous:
            raise _MalformedIndexError("its keys are not in order")
        previous = key
        entries[key.decode("utf-8")] = value
    header = _fields(entries.pop("", b""))
    shards = _number(header, _NUM_SHARDS)
    if not 0 < shards <= 100_000:
        raise _MalformedIndexError(f"it lists {shards} data files")
    if _number(header, _ENDIANNESS) != 0:
        raise WeightsError(f"{index} is big-endian, which is not supported. Save the checkpoint as little-endian.")
    return {name: _tensor(name, value, prefix, shards) for name, value in entries.items()}


def _check_sizes(tensors: Iterable[BundleTensor]) -> None:
    sizes: dict[Path, int] = {}
    for tensor in tensors:
        file, end = tensor.file, tensor.offset + tensor.size
        if file not in sizes:
            sizes[file] = _size(file)
        if end > sizes[file]:
            raise WeightsError(f"{file} has {sizes[file]:,} bytes, but {tensor.name} ends at {end:,}. {ADVICE}")


def _tensor(name: str, value: bytes, prefix: Path, shards: int) -> BundleTensor:
    fields = _fields(value)
    if _SLICES in fields:
        raise WeightsError(f"{name} is saved in slices, which is not supported. Save it as one tensor.")
    dtype_number = _number(fields, _DTYPE)
    dtype = _DTYPES.get(dtype_number)
    if dtype is None:
        raise WeightsError(f"{name} has TensorFlow's dtype {dtype_number}, which is not supported. Use float32.")
    dims = _fields(_bytes(fields.get(_SHAPE, [b""])[-1])).get(_DIM, [])
    shape = tuple(_number(_fields(_bytes(dim)), _DIM_SIZE) for dim in dims)
    shard, offset, size = (_number(fields, number) for number in (_SHARD_ID, _OFFSET, _SIZE))
    if any(length >= 1 << 63 for length in (*shape, offset, size)) or shard >= shards:
        raise _MalformedIndexError(f"{name} has invalid sizes")
    if prod(shape) * dtype.itemsize != size:
        raise _MalformedIndexError(f"{name} {shape} has {size:,} bytes")
    file = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
    return BundleTensor(name, file, offset, dtype, shape, _number(fields, _CRC32C))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        raise WeightsError(f"{file} is missing. Download all files of the checkpoint again.") from None


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a sorted table."""
    if len(data) < _FOOTER:
        raise _MalformedIndexError(f"it has only {len(data)} bytes")
    footer = data[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise _MalformedIndexError("it does not end with the magic number of an index")
    _, _, position = _handle(footer, 0)
    offset, size, _ = _handle(footer, position)
    for _, handle in _block(data, offset, size):
        yield from _block(data, *_handle(handle, 0)[:2])


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise _MalformedIndexError(f"a block ends at {end:,} of {len(data):,} bytes")
    compression, crc = struct.unpack_from("<BI", data, end)
    if masked(crc32c(data[offset : end + 1])) != crc:
        raise _MalformedIndexError(f"the checksum of the block at {offset:,} does not match")
    if compression:
        raise WeightsError("the index is compressed, which is not supported. Save it without compression.")
    (restarts,) = struct.unpack_from("<I", data, end - 4)
    end_of_entries = end - 4 - 4 * restarts
    if end_of_entries < offset:
        raise _MalformedIndexError(f"the block at {offset:,} has {restarts:,} restarts")
    key, position = b"", offset
    while position < end_of_entries:
        shared, position = _varint(data, position)
        unshared, position = _varint(data, position)
        length, position = _varint(data, position)
        if shared > len(key) or position + unshared + length > end_of_entries:
            raise _MalformedIndexError(f"an entry at {position:,} is too long")
        key = key[:shared] + data[position : position + unshared]
        position += unshared
        yield key, data[position : position + length]
        position += length


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    """The offset and the size of a block, and the position after the handle."""
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedIndexError(f"a number at {position:,} does not end")


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protobuf message by number."""
    fields: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire_type = tag & 7
        value: int | bytes
        if wire_type == 0:
            value, position = _varint(message, position)
        elif wire_type in (1, 5):
            width = 8 if wire_type == 1 else 4
            value, position = int.from_bytes(message[position : position + width], "little"), position + width
        elif wire_type == 2:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        else:
            raise _MalformedIndexError(f"a field has wire type {wire_type}")
        if position > len(message):
            raise _MalformedIndexError("a field ends after its message")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[int | bytes]], number: int) -> int:
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _MalformedIndexError(f"field {number} is not a number")
    return value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _MalformedIndexError("a field is a number instead of a message")
    return value
