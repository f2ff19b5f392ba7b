"""Chunks that are encoded separately give the tokens of the whole text."""

from __future__ import annotations

import base64
import random
import string
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import KINDS, TRICKY, tokenizer

from tokenloom.data.tokenizers import ENDOFTEXT, load_tokenizer
from tokenloom.data.tokenizers.chunking import CHUNK_CHARACTERS, MAX_CHUNK_CHARACTERS, split_into_chunks


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(TRICKY, min_size=1, max_size=8), size=st.integers(4, 40))
def test_chunks_encoded_separately_give_the_ids_of_the_whole_text(parts: list[str], size: int) -> None:
    from tokenloom.data.tokenizers import chunking

    text = "".join(parts) * 3
    usual = chunking.CHUNK_CHARACTERS
    chunking.CHUNK_CHARACTERS = size
    try:
        pieces = list(split_into_chunks(parts * 3, [ENDOFTEXT]))
    finally:
        chunking.CHUNK_CHARACTERS = usual
    assert "".join(pieces) == text
    for kind in ("gpt2", "bpe:400", "byte", "char"):
        it = tokenizer(kind)
        assert [i for piece in pieces for i in it.encode(piece)] == it.encode(text), kind


def test_chunks_are_short_if_the_text_has_boundaries(shakespeare: str) -> None:
    line = shakespeare.replace("\n", " ").replace("  ", " ") * 2
    words = line.replace(" ", "\n")
    chinese = shakespeare.replace(" ", "中").replace("\n", "。")
    for text in (shakespeare * 2, line, words, chinese):
        pieces = list(split_into_chunks((text[i : i + 99_999] for i in range(0, len(text), 99_999)), [ENDOFTEXT]))
        assert "".join(pieces) == text
        assert max(map(len, pieces)) < CHUNK_CHARACTERS + 100_000
        gpt2 = load_tokenizer("gpt2")
        assert np.array_equal(np.concatenate([gpt2.encode_array(p) for p in pieces]), gpt2.encode_ordinary(text))


def test_text_without_boundaries_is_not_split_inside_an_end_of_text() -> None:
    before = "x" * (MAX_CHUNK_CHARACTERS - 5)
    pieces = list(split_into_chunks([before, ENDOFTEXT, "y" * 100], [ENDOFTEXT]))
    assert "".join(pieces) == before + ENDOFTEXT + "y" * 100
    assert any(ENDOFTEXT in piece for piece in pieces)
    assert all(len(piece) <= MAX_CHUNK_CHARACTERS for piece in pieces)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("character", [" ", "\n", "a"])
def test_a_run_of_more_than_a_million_characters_is_encoded_like_a_shorter_one(kind: str, character: str) -> None:
    it = tokenizer(kind)
    repeats = 250  # 1,024,000 characters
    period = it.encode_ordinary(character * 4_096)
    expected = np.tile(period, repeats)
    assert np.array_equal(it.encode_array(character * (4_096 * repeats)), expected)
    if character.isspace():  # the last character of the run belongs to the word after it
        word = it.encode_array(character * (4_096 * repeats + 1) + "word")
        assert np.array_equal(word, np.concatenate([expected, it.encode_ordinary(character + "word")]))


def test_white_space_at_the_limit_of_a_chunk_is_followed_by_its_word() -> None:
    gpt2 = load_tokenizer("gpt2")
    space, word = gpt2.encode(" ")[0], gpt2.encode(" word")[0]
    for length in (MAX_CHUNK_CHARACTERS - 1, MAX_CHUNK_CHARACTERS, MAX_CHUNK_CHARACTERS + 1):
        assert gpt2.encode(" " * length + "word word") == [space] * (length - 1) + [word, word], length


@pytest.mark.parametrize("kind", ["gpt2", "json"])
def test_text_without_spaces_or_punctuation_is_split_at_token_boundaries(kind: str) -> None:
    data = random.Random(1).randbytes(400_000)
    text = base64.b64encode(data).decode() + "\n\n\n" + data.hex()
    pieces = list(split_into_chunks([text], [ENDOFTEXT]))
    assert max(map(len, pieces)) <= MAX_CHUNK_CHARACTERS < len(text)
    it = tokenizer(kind)
    assert np.array_equal(it.encode_array(text), it.encode_ordinary(text))


def test_the_ids_of_a_run_do_not_depend_on_how_the_text_is_read() -> None:
    letters = "".join(random.Random(2).choices(string.ascii_lowercase, k=MAX_CHUNK_CHARACTERS + 99_999))
    text = f"Some words, then 12{letters} and more."
    gpt2 = load_tokenizer("gpt2")
    whole = gpt2.encode_array(text)
    for size in (1 << 18, 99_999):
        parts = [text[i : i + size] for i in range(0, len(text), size)]
        pieces = split_into_chunks(parts, [ENDOFTEXT])
        assert np.array_equal(np.concatenate([gpt2.encode_array(piece) for piece in pieces]), whole), size


def test_the_time_to_encode_a_run_is_not_quadratic_in_its_length() -> None:
    gpt2 = load_tokenizer("gpt2")
    run = "".join(random.Random(3).choices(string.ascii_lowercase, k=MAX_CHUNK_CHARACTERS))
    gpt2.encode_array(run[:1_000])
    start = time.process_time()
    gpt2.encode_array(run)
    assert time.process_time() - start < 20  # about 0.3 s; minutes if every merge searches the whole run
