"""The char tokenizer."""

from __future__ import annotations

from tokenloom.data.tokenizers import ENDOFTEXT, make_tokenizer


def test_the_vocabulary_is_characters_then_bytes_then_end_of_text(shakespeare: str) -> None:
    it = make_tokenizer("char", [shakespeare[:500_000], ENDOFTEXT, shakespeare[500_000:]])
    assert (it.vocab_size, it.eot_id) == (65 + 256 + 1, 65 + 256)
    assert it.encode("\n !") == [0, 1, 2]
    assert it.encode("é") == [65 + 0xC3, 65 + 0xA9]
    assert len(it.encode(shakespeare)) == len(shakespeare)
