"""Added tokens are matched as a whole, leave other ids unchanged, and are saved with the tokenizer."""

import numpy as np
import pytest

from tokenloom.config import Config
from tokenloom.data.prepare import prepare
from tokenloom.data.shards import open_shards
from tokenloom.data.tokenizers import load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.added_tokens import ExtendedTokenizer, extend_tokenizer
from tokenloom.data.tokenizers.chunking import split_into_chunks
from tokenloom.errors import DataError, TokenizerError

ADDED = ["<|user|>", "<|user|>s", "[very: long token]"]
TEXT = "Hello <|user|>world<|user|>s<|endoftext|>a [very: long token]. <|user |> 👋"
TRAINING_TEXTS = ["all work and no play <|user|> makes Jack a dull boy. "] * 20


@pytest.fixture(params=["gpt2", "byte", "char", "bpe:300", "json"])
def base(request, tmp_path):
    if request.param != "json":
        return make_tokenizer(request.param, TRAINING_TEXTS)
    make_tokenizer("bpe:300", TRAINING_TEXTS).save(tmp_path / "other")
    (tmp_path / "other" / "tokenizer_config.json").unlink()
    return load_tokenizer(tmp_path / "other")


def test_added_tokens_are_matched_whole_and_other_ids_are_unchanged(base):
    tokenizer = extend_tokenizer(base, ADDED)
    ids = tokenizer.encode(TEXT)
    first = base.vocab_size
    assert tokenizer.vocab_size == first + 3
    assert [i for i in ids if i >= first] == [first, first + 1, first + 2]  # the longer one of two with the same prefix
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer.encode("Hello ") == base.encode("Hello ")
    assert tokenizer.eot_id == base.eot_id
    assert ids.count(base.eot_id) == 1
    assert tokenizer.byte_lengths[first:].tolist() == [0, 0, 0]
    assert tokenizer.fingerprint != base.fingerprint != extend_tokenizer(base, ADDED[:1]).fingerprint
    assert extend_tokenizer(base, []) is base


def test_a_saved_tokenizer_loads_with_the_same_ids_here_and_in_transformers(base, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = extend_tokenizer(extend_tokenizer(base, ADDED[:1]), ADDED[1:])
    tokenizer.save(tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert (loaded.fingerprint, loaded.added) == (tokenizer.fingerprint, tuple(ADDED))
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    loaded = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")
    assert loaded(TEXT, add_special_tokens=False).input_ids == tokenizer.encode(TEXT)


@pytest.mark.parametrize("wrong", ["", "a", "<|endoftext|>", "x<|endoftext|>", "endoftext", "\udcff"])
def test_invalid_added_tokens_are_refused(wrong):
    with pytest.raises(TokenizerError, match="cannot be added"):
        extend_tokenizer(make_tokenizer("byte"), [wrong])
    with pytest.raises(TokenizerError, match="already a token"):
        extend_tokenizer(extend_tokenizer(make_tokenizer("byte"), ["<x>"]), ["<x>"])


def test_a_vocabulary_is_trained_on_the_text_between_added_tokens():
    tokenizer = make_tokenizer("char", ["ab<@>c"], ["<@>"])
    assert isinstance(tokenizer, ExtendedTokenizer)
    assert tokenizer.base.characters == ["a", "b", "c"]  # type: ignore[attr-defined]


def test_long_text_is_never_split_inside_an_added_token():
    text = "word [very: long token]" * 40_000
    pieces = list(split_into_chunks([text], ADDED))
    assert len(pieces) > 1
    tokenizer = extend_tokenizer(make_tokenizer("gpt2"), ADDED)
    joined = np.concatenate([tokenizer.encode_array(piece) for piece in pieces])
    assert np.array_equal(joined, tokenizer.encode_array(text))


def test_prepared_shards_contain_added_tokens(tmp_path):
    (tmp_path / "text.txt").write_text("a dull boy <|user|> plays\n" * 200)
    options = {"sources": [str(tmp_path / "text.txt")], "tokenizer": "byte", "workers": 1}
    prepare(Config.of({"data": {**options, "add_tokens": ["<|user|>"]}}).data, tmp_path / "out")
    shards = open_shards(tmp_path / "out")
    assert shards.tokenizer.added == ("<|user|>",)
    assert 257 in shards.train.read(0, 100)
    with pytest.raises(DataError, match="add_tokens"):
        prepare(Config.of({"data": options}).data, tmp_path / "out")


def test_a_folder_without_tokenizer_json_is_recognised_by_its_merges(tmp_path):
    gpt2 = load_tokenizer("gpt2")
    merges = [" ".join(pair) for pair in gpt2.to_json()["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    assert load_tokenizer(tmp_path).fingerprint == gpt2.fingerprint
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(TokenizerError, match="no tokenizer.json"):
        load_tokenizer(tmp_path)
