"""Files read through gzip and Zstandard in bounded memory, broken ones refused by name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Generator
from typing import BinaryIO

from tokenloom.errors import DataError

# A Zstandard block of 4 bytes may unfold to 128 KiB, so little may be fed at once: this much gives up to 16 MiB.
_ZSTD_FEED_BYTES = 1 << 9
_GZIP_READ_BYTES = 1 << 20

Chunks = Generator[bytes, None, None]


def decompressed(file: BinaryIO, suffix: str, name: str) -> io.BufferedReader:
    """The content of a file named `name`; closing it closes the file.

    Reading raises `DataError` where the compressed data are cut off or damaged.
    """
    chunks = _CHUNKS.get(suffix)
    return io.BufferedReader(file if chunks is None else _Unfolding(file, chunks(file, name)), 1 << 16)  # type: ignore[arg-type]


class _Unfolding(io.RawIOBase):
    """A stream of the chunks that a generator makes of a file."""

    def __init__(self, file: BinaryIO, chunks: Chunks) -> None:
        self._file, self._chunks = file, chunks
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._held:
            self._held = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._held))
        buffer[:size], self._held = self._held[:size], self._held[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._chunks.close()
            self._file.close()
        super().close()


def _gzip_chunks(file: BinaryIO, name: str) -> Chunks:
    try:
        with gzip.GzipFile(fileobj=file) as unfolded:
            while chunk := unfolded.read(_GZIP_READ_BYTES):
                yield chunk
    except EOFError:
        raise _cut_off(name, "gzip") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name} is not a sound gzip file: {error}. Compress or fetch it again.") from None


def _zstd_chunks(file: BinaryIO, name: str) -> Chunks:
    import zstandard

    decompressor, frame = zstandard.ZstdDecompressor(), None
    try:
        while data := file.read(_ZSTD_FEED_BYTES):
            while data:
                frame = frame or decompressor.decompressobj()
                if chunk := frame.decompress(data):
                    yield chunk
                data = frame.unused_data
                frame = None if frame.eof else frame
    except zstandard.ZstdError as error:
        raise DataError(f"{name} is not a sound Zstandard file: {error}. Compress or fetch it again.") from None
    if frame is not None:
        raise _cut_off(name, "Zstandard")


def _cut_off(name: str, kind: str) -> DataError:
    return DataError(f"{name} is cut off: the {kind} data end too early. Compress or fetch it again.")


_CHUNKS: dict[str, Callable[[BinaryIO, str], Chunks]] = {".gz": _gzip_chunks, ".zst": _zstd_chunks}
SUFFIXES = frozenset(_CHUNKS)
