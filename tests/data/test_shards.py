"""Token shards are read as they were written, and corrupt files are reported."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written_shards import TRAIN, VAL, write_shards

from tokenloom.data import shards
from tokenloom.data.shards import Shards, open_shards
from tokenloom.data.tokenizers import Tokenizer, make_tokenizer
from tokenloom.errors import DataError


def test_documents_are_separated_by_end_of_text_tokens(small: Shards) -> None:
    assert small.tokenizer.decode(small.train.read(0, len(small.train))) == "<|endoftext|>".join(TRAIN)
    assert small.tokenizer.decode(small.val.read(0, len(small.val))) == VAL[0]
    assert (small.train.n_documents, small.val.n_documents) == (4, 1)
    assert small.train.n_bytes == sum(map(len, TRAIN))
    assert small.train.n_tokens == len(small.train) == small.train.n_bytes + 3


def test_document_ends_divide_the_tokens_into_documents(small: Shards) -> None:
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
def test_any_range_of_tokens_equals_the_slice_of_the_whole(
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


def test_more_shards_than_the_limit_of_mapped_files_can_be_read(
    byte: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_MAX_MAPPED_SHARDS", 3)
    ids = np.arange(200, dtype=np.uint32)
    train = write_shards(tmp_path / "shards", byte, train=[ids], shard_tokens=7).train
    for start in (0, 150, 3, 70, 199, 0):
        assert train.read(start, 1).tolist() == [start]
    assert train.read(0, 200).tolist() == ids.tolist()


def test_valid_shards_pass_verification(small: Shards) -> None:
    small.verify()
    open_shards(str(small.path)).verify()


@pytest.mark.parametrize("name", ["train/tokens-00001.bin", "train/documents-00001.idx", "val/tokens-00000.bin"])
def test_a_missing_file_or_a_wrong_size_is_detected_on_opening(name: str, small: Shards) -> None:
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
def test_a_flipped_bit_is_detected_by_verification(name: str, small: Shards) -> None:
    data = bytearray((small.path / name).read_bytes())
    data[0] ^= 1
    (small.path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"the sha256 of {name} differs"):
        open_shards(small.path).verify()


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
