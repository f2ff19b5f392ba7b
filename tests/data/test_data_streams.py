"""Pipes are copied, because they can be read only once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokenloom.config import DataConfig
from tokenloom.data.prepare import prepare
from tokenloom.data.sources import read_documents
from tokenloom.data.streams import copied_streams
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import DataError
from tokenloom.evaluation.evaluation_text import read_text

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Creates a named pipe to which a text is written once."""
    writers: list[threading.Thread] = []

    def create(name: str = "pipe.txt", content: bytes = b"all work and no play\n" * 50) -> str:
        path = tmp_path / name
        os.mkfifo(path)
        writers.append(threading.Thread(target=path.write_bytes, args=(content,), daemon=True))
        writers[-1].start()
        return str(path)

    yield create
    for writer in writers:
        writer.join(timeout=10)


def test_a_pipe_can_be_prepared(pipe: Callable[..., str], tmp_path: Path) -> None:
    shards = prepare(DataConfig(sources=(pipe(),), tokenizer="byte", val_fraction=0), tmp_path / "out")
    assert shards.train.n_bytes == 21 * 50


def test_a_pipe_can_be_evaluated(pipe: Callable[..., str], byte: Tokenizer) -> None:
    text = read_text(DataConfig(sources=(pipe("63"),)), byte)
    assert len(text.tokens) == 21 * 50


def test_a_pipe_is_read_as_plain_text(pipe: Callable[..., str]) -> None:
    name = pipe("fifo", b"\xef\xbb\xbfone\r\ntwo")
    with copied_streams([name, name]) as streams:
        for _ in range(2):
            assert [document.text for document in read_documents([name], streams=streams)] == ["one\ntwo"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.txt.gz"])
def test_a_pipe_whose_name_promises_another_format_is_refused(pipe: Callable[..., str], name: str) -> None:
    pipe_name = pipe(name)
    with copied_streams([pipe_name]) as streams, pytest.raises(DataError, match="pipes are read as plain text"):
        list(read_documents([pipe_name], streams=streams))
