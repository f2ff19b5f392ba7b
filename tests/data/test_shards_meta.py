"""meta.json is validated when shards are opened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tokenloom.data.shards import Shards, open_shards
from tokenloom.data.shards_meta import token_dtype
from tokenloom.errors import DataError


@pytest.mark.parametrize(("vocab_size", "name"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_two_bytes_for_a_vocabulary_of_up_to_65536_tokens(vocab_size: int, name: str) -> None:
    assert token_dtype(vocab_size) == np.dtype(name).newbyteorder("<")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b"[]", b"{}", b'{"format": "something else"}'])
def test_a_folder_with_another_meta_json_is_refused(content: bytes, small: Shards) -> None:
    (small.path / "meta.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_shards(small.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["fingerprint", "dtype", "tokenizer", "splits", "request", "sources"])
@pytest.mark.parametrize("value", [None, 5, "x", []])
def test_a_corrupt_meta_json_is_refused(key: str, value: object, small: Shards) -> None:
    meta = json.loads((small.path / "meta.json").read_text(encoding="utf-8"))
    del meta[key]
    for damaged in (meta, {**meta, key: value}):
        (small.path / "meta.json").write_text(json.dumps(damaged))
        if key in ("fingerprint", "request", "sources") and key in damaged:
            continue
        with pytest.raises(DataError, match=r"are corrupt: meta\.json"):
            open_shards(small.path)


def test_another_format_version_is_refused_by_number(small: Shards) -> None:
    meta = json.loads((small.path / "meta.json").read_text(encoding="utf-8"))
    (small.path / "meta.json").write_text(json.dumps({**meta, "version": 2}))
    with pytest.raises(DataError, match="have format version 2; this version of tokenloom reads version 1"):
        open_shards(small.path)


def test_a_path_without_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(DataError, match="is not a folder of token shards"):
            open_shards(path)
