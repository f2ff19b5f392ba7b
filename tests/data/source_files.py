"""Files to read, and what reading them gives."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tokenloom.data.documents import ReadOptions, ReadState
from tokenloom.data.sources import read_documents
from tokenloom.errors import DataError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def texts(*names: str | Path, **options: str) -> list[str]:
    return [document.text for document in read_documents(map(str, names), ReadState(ReadOptions(**options)))]  # type: ignore[arg-type]


def refusal(*names: str | Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        texts(*names, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(path: Path, **columns: list) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path
