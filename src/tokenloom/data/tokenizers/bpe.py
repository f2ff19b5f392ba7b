"""Byte-pair encoding over bytes, as GPT-2 does it: gpt2, bpe:N, and byte, which merges nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from importlib import resources
from typing import Any

import numpy as np

from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer, special_token_json
from tokenloom.errors import TokenizerError

Merge = tuple[bytes, bytes]

# Contractions, then runs of letters, of digits, of anything else, and of white space; nothing is merged across runs.
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
SMALLEST_VOCABULARY = 257
_LONGEST_WORD = 128  # bytes, while learning

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
# Byte-level vocabulary files write a printable byte as itself, the others as the characters from U+0100 on.
CHARACTER_OF_BYTE = {**{b: chr(b) for b in _PRINTABLE}, **{b: chr(256 + i) for i, b in enumerate(_OTHERS)}}
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
GPT2_ALPHABET = _PRINTABLE + _OTHERS


class BytePairs(Tokenizer):
    """256 bytes in the order of `alphabet`, then one token for each merge, then <|endoftext|>."""

    def __init__(self, kind: str, alphabet: Sequence[int] = range(256), merges: Sequence[Merge] = ()) -> None:
        tokens = [bytes([byte]) for byte in alphabet] + [left + right for left, right in merges]
        super().__init__(kind, [*tokens, ENDOFTEXT.encode()], eot_id=len(tokens))
        self.merges = list(merges)

    def _description(self) -> bytes:
        pattern = GPT2_PATTERN.encode() if self.merges else b""
        return pattern + b"".join([len(token).to_bytes(4, "little") + token for token in self.token_bytes])

    def _encode_plain(self, text: str) -> np.ndarray:
        if not self.merges:
            return self._ids_of_bytes[np.frombuffer(text.encode("utf-8"), dtype=np.uint8)]
        return self._core.encode_to_numpy(text, disallowed_special=()).astype(np.uint32, copy=False)

    @cached_property
    def _ids_of_bytes(self) -> np.ndarray:
        return np.array([self._byte_ids[byte] for byte in range(256)], dtype=np.uint32)

    @cached_property
    def _core(self) -> Any:
        import tiktoken

        # The core applies the merge whose result has the lowest id first. For merges that were learned one after
        # another, as here, that is the order of the list, and it never meets a result by another pair.
        ranks = {token: rank for rank, token in enumerate(self.token_bytes[: self.eot_id])}
        return tiktoken.Encoding(self.kind, pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})

    def to_json(self) -> dict[str, Any]:
        vocabulary = {to_characters(token): i for i, token in enumerate(self.token_bytes[: self.eot_id])}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special_token_json(self.eot_id, self.eot_text)],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {**vocabulary, self.eot_text: self.eot_id},
                "merges": [[to_characters(left), to_characters(right)] for left, right in self.merges],
            },
        }


def to_characters(token: bytes) -> str:
    """A token as byte-level vocabulary files write it."""
    return "".join([CHARACTER_OF_BYTE[byte] for byte in token])


def from_characters(written: str) -> bytes:
    """The bytes of a token in a byte-level vocabulary file; raises KeyError for a character that stands for none."""
    return bytes([BYTE_OF_CHARACTER[character] for character in written])


def byte_tokenizer() -> BytePairs:
    """Ids 0 to 255 are the bytes themselves; 256 is <|endoftext|>."""
    return BytePairs("byte")


@cache
def gpt2_tokenizer() -> BytePairs:
    """GPT-2's own 50,257 tokens, from the merge list that is part of this package; no network."""
    packed = resources.files("tokenloom.data").joinpath("assets/gpt2-vocab.bpe.gz").read_bytes()
    merge_list = gzip.decompress(packed)
    if hashlib.sha256(merge_list).hexdigest() != GPT2_MERGES_SHA256:
        raise TokenizerError("the bundled GPT-2 merge list is damaged. Install tokenloom again.")
    lines = merge_list.decode("utf-8").splitlines()[1:]  # the first line is a version
    return BytePairs("gpt2", GPT2_ALPHABET, [merge_of(line.split(" ")) for line in lines])


def learn_byte_pairs(vocab_size: int, texts: Iterable[str]) -> BytePairs:
    """Learn merges from texts until there are `vocab_size` tokens, bytes and <|endoftext|> included.

    The same texts give the same merges. A text too short for so many merges gives fewer tokens.
    """
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Learner

    if vocab_size < SMALLEST_VOCABULARY:
        raise TokenizerError(
            f"bpe:{vocab_size} is too small: 256 bytes and {ENDOFTEXT} are {SMALLEST_VOCABULARY} tokens. Try bpe:2048."
        )
    learner = Learner(models.BPE())
    # A merge costs the square of a word's length, and text without spaces is one word.
    short_words = pre_tokenizers.Split(Regex(f".{{{_LONGEST_WORD}}}"), "isolated")
    bytes_in_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([bytes_in_words, short_words])  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=vocab_size - 1, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    learner.train_from_iterator(texts, trainer)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return BytePairs("bpe", merges=[merge_of(merge) for merge in merges])


def merge_of(pair: Sequence[str]) -> Merge:
    left, right = pair
    return from_characters(left), from_characters(right)
