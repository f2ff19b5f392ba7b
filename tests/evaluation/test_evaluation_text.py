"""Texts for evaluation: documents joined by the end-of-text token, and words counted once."""

import pytest

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


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
def test_words_of_a_split_are_counted_once_for_any_chunk_size(tmp_path, chunk):
    (tmp_path / "text.txt").write_text(" one two\n\nthree, four ")
    shards = prepare(data_of(sources=[str(tmp_path / "text.txt")], val_fraction=0), tmp_path / "shards")
    assert text_of_split(shards.train, BYTES, chunk).words == 4
