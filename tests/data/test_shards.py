"""Token shards come back as they were written, or say what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_shards import write_shards

from tokenloom.data import shards
from tokenloom.data.shards import Shards, open_shards
from tokenloom.data.shards_meta import token_dtype
from tokenloom.data.tokenizers import Tokenizer, load_tokenizer, make_tokenizer
from tokenloom.errors import DataError

TRAIN, VAL = ["one document", "a second, longer document", "x", "the fourth"], ["held out"]


@pytest.fixture(scope="module")
def byte() -> Tokenizer:
    return load_tokenizer("byte")


@pytest.fixture
def small(byte: Tokenizer, tmp_path: Path) -> Shards:
    train, val = ([byte.encode_array(text) for text in texts] for texts in (TRAIN, VAL))
    return write_shards(tmp_path / "shards", byte, train=train, val=val, shard_tokens=10)


def test_documents_come_back_with_ends_of_text_between_them(small: Shards) -> None:
    assert small.tokenizer.decode(small.train.read(0, len(small.train))) == "<|endoftext|>".join(TRAIN)
    assert small.tokenizer.decode(small.val.read(0, len(small.val))) == VAL[0]
    assert (small.train.n_documents, small.val.n_documents) == (4, 1)
    assert small.train.n_bytes == sum(map(len, TRAIN))
    assert small.train.n_tokens == len(small.train) == small.train.n_bytes + 3


def test_document_ends_cut_the_tokens_into_documents(small: Shards) -> None:
    ends = small.train.document_ends()
    assert ends.dtype == np.uint64
    assert ends[-1] == len(small.train)
    parts = np.split(small.train.read(0, len(small.train)), ends[:-1].astype(int))
    texts = [small.tokenizer.decode(part) for part in parts]
    assert texts == [f"{text}<|endoftext|>" for text in TRAIN[:-1]] + [TRAIN[-1]]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(st.lists(st.integers(0, 256), max_size=12), max_size=6),
    shard_tokens=st.integers(1, 20),
    data=st.data(),
)
def test_any_reading_equals_the_same_slice_of_the_whole(
    documents: list[list[int]], shard_tokens: int, data: st.DataObject, byte: Tokenizer, tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("any") / "shards"
    arrays = [np.array(document, dtype=np.uint32) for document in documents]
    train = write_shards(folder, byte, train=arrays, shard_tokens=shard_tokens).train
    whole = [i for document in documents for i in [256, *document]][1:]
    assert len(train) == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    count = data.draw(st.integers(0, len(whole) - start))
    assert train.read(start, count).tolist() == whole[start : start + count]
    for out_of_range in ((0, len(whole) + 1), (-1, 1), (len(whole) + 1, 0), (0, -1)):
        with pytest.raises(IndexError):
            train.read(*out_of_range)


def test_more_shards_than_may_be_mapped_at_once_are_read(
    byte: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_MAX_MAPPED_SHARDS", 3)
    ids = np.arange(200, dtype=np.uint32)
    train = write_shards(tmp_path / "shards", byte, train=[ids], shard_tokens=7).train
    for start in (0, 150, 3, 70, 199, 0):
        assert train.read(start, 1).tolist() == [start]
    assert train.read(0, 200).tolist() == ids.tolist()


@pytest.mark.parametrize(("vocab_size", "name"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_two_bytes_where_they_fit(vocab_size: int, name: str) -> None:
    assert token_dtype(vocab_size) == np.dtype(name).newbyteorder("<")


def test_a_large_vocabulary_is_written_in_four_bytes(tmp_path: Path) -> None:
    large = make_tokenizer("char", [chr(0x10000 + i) for i in range(66_000)])
    written = write_shards(tmp_path / "shards", large, train=[np.array([1, 66_000, 66_256])])
    assert written.train.read(0, 3).dtype == np.dtype("<u4")
    assert written.train.read(0, 3).tolist() == [1, 66_000, 66_256]
    assert (tmp_path / "shards/train/tokens-00000.bin").stat().st_size == 12


def test_files_are_laid_out_as_designed(small: Shards) -> None:
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


def test_the_fingerprint_tells_the_tokens_and_nothing_else(byte: Tokenizer, tmp_path: Path) -> None:
    def fingerprint(name: str, *documents: bytes, tokenizer: Tokenizer = byte) -> str:
        arrays = [np.frombuffer(document, dtype=np.uint8) for document in documents]
        return write_shards(tmp_path / name, tokenizer, train=arrays).fingerprint

    first = fingerprint("a", b"one", b"two")
    assert fingerprint("b", b"one", b"two") == first
    others = {fingerprint("c", b"one", b"twp"), fingerprint("d", b"on", b"etwo")}
    others.add(fingerprint("e", b"one", b"two", tokenizer=make_tokenizer("char", ["x"])))
    assert len(others | {first}) == 4


def test_sound_shards_verify(small: Shards) -> None:
    small.verify()
    open_shards(str(small.path)).verify()


@pytest.mark.parametrize("name", ["train/tokens-00001.bin", "train/documents-00001.idx", "val/tokens-00000.bin"])
def test_a_missing_shortened_or_lengthened_file_is_found_when_opened(name: str, small: Shards) -> None:
    file = small.path / name
    data = file.read_bytes()
    for content in (data[:-1], data + b"\0", b""):
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{name} has"):
            open_shards(small.path)
    file.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        open_shards(small.path)


@pytest.mark.parametrize("name", ["train/tokens-00001.bin", "train/documents-00001.idx"])
def test_a_flipped_bit_is_found_by_verify(name: str, small: Shards) -> None:
    data = bytearray((small.path / name).read_bytes())
    data[0] ^= 1
    (small.path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"the sha256 of {name} differs"):
        open_shards(small.path).verify()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b"[]", b"{}", b'{"format": "something else"}'])
def test_a_folder_with_another_meta_json_is_refused(content: bytes, small: Shards) -> None:
    (small.path / "meta.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_shards(small.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["fingerprint", "dtype", "tokenizer", "splits", "request", "sources"])
@pytest.mark.parametrize("value", [None, 5, "x", []])
def test_a_damaged_meta_json_is_refused(key: str, value: object, small: Shards) -> None:
    meta = json.loads((small.path / "meta.json").read_text(encoding="utf-8"))
    del meta[key]
    for damaged in (meta, {**meta, key: value}):
        (small.path / "meta.json").write_text(json.dumps(damaged))
        if key in ("fingerprint", "request", "sources") and key in damaged:
            continue
        with pytest.raises(DataError, match=r"are corrupt: meta\.json"):
            open_shards(small.path)


def test_another_version_is_refused_by_number(small: Shards) -> None:
    meta = json.loads((small.path / "meta.json").read_text(encoding="utf-8"))
    (small.path / "meta.json").write_text(json.dumps({**meta, "version": 2}))
    with pytest.raises(DataError, match="have format version 2; this version of tokenloom reads version 1"):
        open_shards(small.path)


def test_what_is_no_folder_of_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(DataError, match="is not a folder of token shards"):
            open_shards(path)


def test_shards_without_their_tokenizer_are_refused(small: Shards, byte: Tokenizer) -> None:
    shutil.rmtree(small.path / "tokenizer")
    with pytest.raises(DataError, match="the tokenizer of token shards .* cannot be loaded"):
        _ = open_shards(small.path).tokenizer
    make_tokenizer("char", ["abc"]).save(small.path / "tokenizer")
    with pytest.raises(DataError, match="not the one that encoded the tokens"):
        _ = open_shards(small.path).tokenizer


def test_an_empty_split_has_no_tokens(byte: Tokenizer, tmp_path: Path) -> None:
    val = write_shards(tmp_path / "shards", byte, train=[np.array([1, 2])]).val
    assert (len(val), val.n_documents, val.n_bytes) == (0, 0, 0)
    assert val.read(0, 0).shape == (0,)
    assert val.document_ends().shape == (0,)
