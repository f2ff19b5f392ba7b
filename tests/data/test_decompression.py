"""Compressed files are read in bounded memory, and corrupt ones are refused."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from pathlib import Path

import pytest
from source_files import COMPRESS, refusal, texts

from tokenloom.data import decompression
from tokenloom.data.documents import ReadState
from tokenloom.data.sources import find_sources


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_highly_compressed_data_is_read_in_bounded_memory(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"zeros.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](bytes(300_000_000)))
    (source,) = find_sources([str(file)])
    tracemalloc.start()
    try:
        assert sum(len(piece.text) for piece in source.read(ReadState())) == 300_000_000
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.txt{suffix}"
    packed = COMPRESS[suffix](bytes(range(32, 127)) * 10_000)
    for keep in (len(packed) - 1, len(packed) // 2, 12):
        file.write_bytes(packed[:keep])
        assert "is truncated" in refusal(file)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_an_uncompressed_file_with_a_compression_suffix_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.txt{suffix}"
    file.write_bytes(b"plain text, never compressed")
    assert "is not a valid" in refusal(file)


def test_a_corrupt_gzip_file_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(bytes(range(32, 127)) * 1_000))
    for at in (len(packed) // 2, len(packed) - 6):
        damaged = packed.copy()
        damaged[at] ^= 0xFF
        (tmp_path / "book.txt.gz").write_bytes(damaged)
        assert "gzip" in refusal(tmp_path / "book.txt.gz")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_concatenated_compressed_files_are_read_as_one(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"book.txt{suffix}").write_bytes(COMPRESS[suffix](b"first ") + COMPRESS[suffix](b"second"))
    assert texts(tmp_path / f"book.txt{suffix}") == ["first second"]


def test_any_number_of_bytes_can_be_read_at_once() -> None:
    data = zlib.compress(b"x") * 50_000
    for suffix in (".gz", ".zst"):
        with decompression.decompressed(io.BytesIO(COMPRESS[suffix](data)), suffix, "x") as file:
            assert file.read(7) + file.read() == data
