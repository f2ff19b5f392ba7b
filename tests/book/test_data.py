"""Text, token ids and batches, as the book makes them."""

import math

import pytest

from tokenloom.book import create_dataloader_v1, get_encoding, text_to_token_ids, token_ids_to_text
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import DataError, UsageError


@pytest.mark.parametrize("tokenizer", [get_encoding("gpt2"), load_tokenizer("gpt2")], ids=["tiktoken", "tokenloom"])
def test_text_is_encoded_as_a_batch_of_one_and_decoded_again(tokenizer):
    text = "Every effort<|endoftext|> moves you"
    ids = text_to_token_ids(text, tokenizer)
    assert ids.shape[0] == 1
    assert 50256 in ids
    assert token_ids_to_text(ids, tokenizer) == text


def test_an_encoding_that_the_book_does_not_use_is_rejected():
    with pytest.raises(UsageError, match="cl100k"):
        get_encoding("cl100k_base")


def test_windows_start_at_multiples_of_the_stride_and_targets_are_shifted_by_one(text):
    loader = create_dataloader_v1(text, batch_size=1, max_length=16, stride=5, shuffle=False)
    ids = load_tokenizer("gpt2").encode(text)
    assert len(loader) == math.ceil((len(ids) - 16) / 5)
    for i, (x, y) in enumerate(loader):
        assert x[0].tolist() == ids[5 * i : 5 * i + 16]
        assert y[0].tolist() == ids[5 * i + 1 : 5 * i + 17]


def test_a_text_shorter_than_a_window_is_rejected():
    with pytest.raises(DataError, match="too few for one window"):
        create_dataloader_v1("too short", max_length=256)
