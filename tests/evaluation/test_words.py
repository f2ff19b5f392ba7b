"""Words: counted once for any chunk size, and found at the same places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.evaluation.words import count_words, word_starts

BYTES = load_tokenizer("byte")
TEXTS = st.text(st.sampled_from("ab é\u00a0\u3000\n\t\x85\u200b語"), max_size=12)


def tokens_of(*documents: str) -> TokenArray:
    ids = [token for document in documents for token in (BYTES.eot_id, *document.encode())]
    return TokenArray(np.array(ids[1:], dtype=np.uint32))


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 9))
def test_words_are_those_of_the_documents_for_any_chunk_size(documents, chunk):
    assert count_words(tokens_of(*documents), BYTES, chunk) == sum(len(document.split()) for document in documents)


@given(TEXTS)
def test_as_many_words_start_as_are_counted(text):
    assert len(word_starts(text)) == count_words(tokens_of(text), BYTES)


@pytest.mark.parametrize(
    ("text", "starts"), [("one two", [0, 3]), (" é\u00a0b ", [0, 3]), ("", []), (" \n", []), ("a\u3000b", [0, 1])]
)
def test_a_word_starts_with_the_white_space_before_it(text, starts):
    assert word_starts(text) == starts


def test_bytes_that_are_no_text_are_one_word():
    assert count_words(TokenArray([0x61, 0x20, 0xE2, 0x82]), BYTES) == 2
