"""Texts for evaluation: documents joined by the end-of-text token, and words counted by one rule."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

from tokenloom.config import Config
from tokenloom.data.prepare import prepare
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.evaluation.evaluation_text import read_text, text_of_split

BYTES = load_tokenizer("byte")


def data_of(**settings):
    return Config.of({"data": {"tokenizer": "byte", **settings}}).data


def test_documents_are_joined_by_the_end_of_text_token(tmp_path):
    for name, content in {"1.txt": "one two", "2.txt": "three"}.items():
        (tmp_path / name).write_text(content)
    text = read_text(data_of(sources=[str(tmp_path / "1.txt"), str(tmp_path / "2.txt")]), BYTES)
    assert text.tokens.read(0, len(text.tokens)).tolist() == [*b"one two", BYTES.eot_id, *b"three"]
    assert text.words == 3


def test_words_and_tokens_are_the_same_whatever_a_text_is_read_from(tmp_path, monkeypatch):
    """A file, standard input and token shards; white space of Unicode, and documents that meet without any."""
    first, second = "\ufeffone\u00a0two\r\nthree\u3000four", "five"
    names = [str(tmp_path / name) for name in ("1.txt", "2.txt")]
    for name, text in zip(names, (first, second), strict=True):
        Path(name).write_bytes(text.encode())
    shards = prepare(data_of(sources=names, val_fraction=0), tmp_path / "shards")
    texts = [read_text(data_of(sources=names), BYTES), text_of_split(shards.train, BYTES)]
    assert [text.words for text in texts] == [5, 5]
    assert texts[0].tokens.read(0, len(texts[0].tokens)).tolist() == shards.train.read(0, len(shards.train)).tolist()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(first.encode())))
    assert read_text(data_of(sources=["-"]), BYTES).words == 4
