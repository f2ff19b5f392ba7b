"""Baselines: entropies against explicit sums, compressors on texts of known entropy."""

import lzma
import math
from dataclasses import asdict

import numpy as np
import pytest

from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import DataError
from tokenloom.evaluation import baselines as module
from tokenloom.evaluation.baselines import baselines

RANDOM = np.random.default_rng(0).bytes(40_000)
BYTES = load_tokenizer("byte")


def figures(*args, **options) -> dict:
    return asdict(baselines(*args, **options))


def tokens_of(text: bytes) -> TokenArray:
    return TokenArray(np.frombuffer(text, np.uint8))


def of_bytes(train: bytes, text: bytes, **options):
    """Baselines with one token per byte."""
    return figures(tokens_of(train), tokens_of(text), BYTES, **options)


def test_unigram_entropy_is_that_of_the_texts_own_token_frequencies():
    result = of_bytes(b"", b"aaab", compress=False)
    nats = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert result["uniform_nats_per_token"] == pytest.approx(math.log(257))
    assert result["unigram_nats_per_token"] == pytest.approx(nats)
    assert result["unigram_bits_per_byte"] == pytest.approx(nats / math.log(2))
    assert result["val_bytes"] == 4


def test_the_end_of_text_token_counts_as_a_token_and_not_as_bytes():
    result = figures(None, TokenArray([97, 256]), BYTES, compress=False)
    assert result["val_bytes"] == 1
    assert result["unigram_nats_per_token"] == pytest.approx(math.log(2))
    assert result["unigram_bits_per_byte"] == pytest.approx(2)


def test_the_keys_are_always_the_same():
    quick = of_bytes(b"some text", b"more", compress=False)
    assert quick.keys() == of_bytes(b"some text", b"more").keys()
    assert quick["xz_bits_per_byte"] is quick["zstd_bits_per_byte"] is quick["compressed_val_bytes"] is None


def test_random_bytes_cost_eight_bits_and_repeated_ones_almost_none():
    new, repeated = of_bytes(RANDOM[:20_000], RANDOM[20_000:]), of_bytes(RANDOM, RANDOM[5_000:15_000])
    for key in ("xz_bits_per_byte", "zstd_bits_per_byte"):
        assert new[key] == pytest.approx(8, abs=0.05)
        assert 0 <= repeated[key] < 1  # a match of xz is at most 273 bytes long, and costs a few itself
    assert new["unigram_bits_per_byte"] == pytest.approx(8, abs=0.05)


def test_compressors_use_the_training_text():
    words = b"the quick brown fox jumps over the lazy dog and runs far away "
    with_train, without = of_bytes(words, words), of_bytes(b"", words)
    assert with_train["xz_bits_per_byte"] < 0.5 * without["xz_bits_per_byte"]
    assert with_train["zstd_bits_per_byte"] < 0.5 * without["zstd_bits_per_byte"]


def test_compressors_and_model_share_the_bytes_of_the_text_as_denominator():
    """The end-of-text tokens between documents are compressed, as the model predicts them, but are no bytes of text."""
    documents = [RANDOM[start : start + 10] for start in range(0, 1000, 10)]
    ids = [token for document in documents for token in (BYTES.eot_id, *document)][1:]
    result = figures(None, TokenArray(ids), BYTES)
    assert result["val_bytes"] == result["compressed_text_bytes"] == 1000
    compressed = len(lzma.compress(b"<|endoftext|>".join(documents), preset=9 | lzma.PRESET_EXTREME))
    alone = len(lzma.compress(b"", preset=9 | lzma.PRESET_EXTREME))
    assert result["xz_bits_per_byte"] == pytest.approx(8 * (compressed - alone) / 1000)


def test_long_texts_are_cut_to_the_end_of_training_and_the_start_of_validation(monkeypatch):
    monkeypatch.setattr(module, "MAX_TRAIN_BYTES", 10_000)
    monkeypatch.setattr(module, "MAX_VAL_BYTES", 5_000)
    repeated = of_bytes(RANDOM[:20_000], RANDOM[10_000:20_000] + RANDOM[20_000:])
    assert (repeated["compressed_train_bytes"], repeated["compressed_val_bytes"]) == (10_000, 5_000)
    assert repeated["xz_bits_per_byte"] < 1
    assert repeated["val_bytes"] == 30_000
    out_of_reach = of_bytes(RANDOM[:20_000], RANDOM[:10_000])
    assert out_of_reach["xz_bits_per_byte"] > 7.9


def test_tokens_are_counted_in_chunks(monkeypatch):
    tokens = tokens_of(RANDOM)
    whole = baselines(tokens, tokens, BYTES)
    monkeypatch.setattr(module, "CHUNK_TOKENS", 999)
    assert baselines(tokens, tokens, BYTES) == whole


def test_an_empty_text_is_refused():
    with pytest.raises(DataError, match="text is empty"):
        of_bytes(b"some text", b"")


def test_tokens_outside_the_vocabulary_are_refused():
    with pytest.raises(DataError, match="token 300"):
        baselines(None, TokenArray([1, 300]), BYTES, compress=False)
