"""Compressed files are read in bounded memory, and corrupt ones are refused."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib
from pathlib import Path

import pytest
import zstandard
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


@pytest.mark.parametrize("window_log", [28, 31])
def test_zstandard_with_a_long_window_is_read(window_log: int, tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    # Without the size of the content, the decompressor has to rely on the window size that the file declares.
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    file = tmp_path / "book.txt.zst"
    file.write_bytes(compressor.compress(b"a long window\n" * 1_000) + compressor.flush())
    assert texts(file) == ["a long window\n" * 1_000]


def test_zstandard_with_a_window_past_two_gibibytes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "book.txt.zst"
    file.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([(32 - 10) << 3]) + b"\x01\x00\x00")
    assert refusal(file) == (
        f"{file} needs a window of more than 2 GiB to decompress. Compress it again with --long=31 or less."
    )


def test_data_after_a_compressed_file_is_refused_unless_it_is_padding(tmp_path: Path) -> None:
    for suffix in (".gz", ".zst"):
        file = tmp_path / f"book.txt{suffix}"
        file.write_bytes(COMPRESS[suffix](b"text") + b"garbage")
        assert "is not a valid" in refusal(file)
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(b"text") + bytes(100))
    assert texts(tmp_path / "book.txt.gz") == ["text"]
