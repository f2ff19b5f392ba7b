"""Streaming decompression of gzip and Zstandard files in bounded memory: at most 2 GiB for a Zstandard window."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from tokenloom.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A file made with --long=31, the longest window of the zstd program. Memory is used as far as the window is filled.
_ZSTD_WINDOW_BYTES = 1 << 31
# A Zstandard block of 4 bytes can decompress to 128 KiB: an input of this size gives at most 16 MiB.
_ZSTD_INPUT_BYTES = 1 << 9
_GZIP_OUTPUT_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16

Chunks: TypeAlias = Generator[bytes, None, None]


def decompressed(file: BinaryIO, suffix: str, name: str) -> BinaryIO:
    """The decompressed content of `file`, which is closed with it; `name` is for errors.

    A file whose suffix is not in `SUFFIXES` is returned unchanged. Reading raises `DataError` if the compressed data
    is truncated or corrupt.
    """
    decompress = _DECOMPRESSORS.get(suffix)
    if decompress is None:
        return file
    return io.BufferedReader(_DecompressedStream(file, decompress(file, name)), _BUFFER_BYTES)


class _DecompressedStream(io.RawIOBase):
    """A readable stream of the chunks that a generator produces from a file."""

    def __init__(self, file: BinaryIO, chunks: Chunks) -> None:
        self._file, self._chunks = file, chunks
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if not self._pending:
            self._pending = memoryview(next(self._chunks, b""))
        target = memoryview(buffer)
        size = min(len(target), len(self._pending))
        target[:size], self._pending = self._pending[:size], self._pending[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._chunks.close()
            self._file.close()
        super().close()


def _gzip_chunks(file: BinaryIO, name: str) -> Chunks:
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(_GZIP_OUTPUT_BYTES):
                yield chunk
    except EOFError:
        raise _truncated(name, "gzip") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _invalid(name, "gzip", error) from None


def _zstd_chunks(file: BinaryIO, name: str) -> Chunks:
    import zstandard

    decompressor, frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES), None
    try:
        while data := file.read(_ZSTD_INPUT_BYTES):
            while data:
                frame = frame or decompressor.decompressobj()
                if chunk := frame.decompress(data):
                    yield chunk
                data = frame.unused_data
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise DataError(
                f"{name} needs a window of more than {_ZSTD_WINDOW_BYTES >> 30} GiB to decompress. "
                "Compress it again with --long=31 or less."
            ) from None
        raise _invalid(name, "Zstandard", error) from None
    if frame is not None:
        raise _truncated(name, "Zstandard")


def _truncated(name: str, file_format: str) -> DataError:
    return DataError(f"{name} is truncated: the {file_format} data ends early. Compress or download it again.")


def _invalid(name: str, file_format: str, error: Exception) -> DataError:
    return DataError(f"{name} is not a valid {file_format} file: {error}. Compress or download it again.")


_DECOMPRESSORS: dict[str, Callable[[BinaryIO, str], Chunks]] = {".gz": _gzip_chunks, ".zst": _zstd_chunks}
SUFFIXES = frozenset(_DECOMPRESSORS)
