"""Lossless tokenizers: gpt2, byte, char, bpe:N, or a tokenizer.json."""

from tokenloom.data.tokenizers.load import load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, EndOfText, Tokenizer

__all__ = ["ENDOFTEXT", "EndOfText", "Tokenizer", "load_tokenizer", "make_tokenizer"]
