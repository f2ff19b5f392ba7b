"""Chunks that are encoded separately give the tokens of the whole text."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_samples import TRICKY, tokenizer

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
        assert np.array_equal(np.concatenate([gpt2.encode_array(p) for p in pieces]), gpt2.encode_array(text))


def test_text_without_boundaries_is_not_split_inside_an_end_of_text() -> None:
    before = "x" * (MAX_CHUNK_CHARACTERS - 5)
    pieces = list(split_into_chunks([before, ENDOFTEXT, "y" * 100], [ENDOFTEXT]))
    assert "".join(pieces) == before + ENDOFTEXT + "y" * 100
    assert any(ENDOFTEXT in piece for piece in pieces)
    assert all(len(piece) <= MAX_CHUNK_CHARACTERS for piece in pieces)
