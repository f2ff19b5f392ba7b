"""Texts and small corpora."""

from __future__ import annotations

from pathlib import Path

import pytest
from written_shards import TRAIN, VAL, write_shards

from tokenloom.data import shard_jobs
from tokenloom.data.shards import Shards
from tokenloom.data.tokenizers import Tokenizer, load_tokenizer


@pytest.fixture(scope="session")
def shakespeare(texts_folder: Path) -> str:
    return (texts_folder / "tinyshakespeare.txt").read_text(encoding="utf-8")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Forty small documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02d}.txt").write_text(f"document {i} says {'word ' * (i % 7)}\n", encoding="utf-8")
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_jobs, "SHARD_BYTES", 100)


@pytest.fixture(scope="session")
def byte() -> Tokenizer:
    return load_tokenizer("byte")


@pytest.fixture
def small(byte: Tokenizer, tmp_path: Path) -> Shards:
    train, val = ([byte.encode_array(text) for text in texts] for texts in (TRAIN, VAL))
    return write_shards(tmp_path / "shards", byte, train=train, val=val, shard_tokens=10)
