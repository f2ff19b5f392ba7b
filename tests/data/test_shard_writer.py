"""The files of token shards have the documented format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from written_shards import write_shards

from tokenloom.data.shards import Shards
from tokenloom.data.tokenizers import Tokenizer, make_tokenizer


def test_a_large_vocabulary_is_written_in_four_bytes(tmp_path: Path) -> None:
    large = make_tokenizer("char", [chr(0x10000 + i) for i in range(66_000)])
    written = write_shards(tmp_path / "shards", large, train=[np.array([1, 66_000, 66_256])])
    assert written.train.read(0, 3).dtype == np.dtype("<u4")
    assert written.train.read(0, 3).tolist() == [1, 66_000, 66_256]
    assert (tmp_path / "shards/train/tokens-00000.bin").stat().st_size == 12


def test_files_have_the_documented_layout(small: Shards) -> None:
    tokens = np.fromfile(small.path / "train/tokens-00000.bin", dtype="<u2")
    assert tokens.tolist() == list(b"one docume")
    ends = np.fromfile(small.path / "train/documents-00001.idx", dtype="<u8")
    assert ends.tolist() == [13]
    meta = json.loads((small.path / "meta.json").read_text(encoding="utf-8"))
    assert (meta["format"], meta["version"], meta["dtype"]) == ("tokenloom-shards", 1, "uint16")
    assert meta["splits"]["train"]["tokens"] == small.train.n_tokens
    assert meta["splits"]["train"]["documents"] == 4
    assert meta["splits"]["train"]["bytes"] == small.train.n_bytes
    assert meta["tokenizer"]["fingerprint"] == small.tokenizer.fingerprint
    assert [path for path in small.path.rglob("*") if path.suffix == ".tmp"] == []


def test_the_fingerprint_depends_on_tokens_document_ends_and_tokenizer(byte: Tokenizer, tmp_path: Path) -> None:
    def fingerprint(name: str, *documents: bytes, tokenizer: Tokenizer = byte) -> str:
        arrays = [np.frombuffer(document, dtype=np.uint8) for document in documents]
        return write_shards(tmp_path / name, tokenizer, train=arrays).fingerprint

    first = fingerprint("a", b"one", b"two")
    assert fingerprint("b", b"one", b"two") == first
    others = {fingerprint("c", b"one", b"twp"), fingerprint("d", b"on", b"etwo")}
    others.add(fingerprint("e", b"one", b"two", tokenizer=make_tokenizer("char", ["x"])))
    assert len(others | {first}) == 4
