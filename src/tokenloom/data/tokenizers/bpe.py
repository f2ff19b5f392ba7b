"""Byte-level BPE as in GPT-2: the tokenizers gpt2, bpe:N, and byte, which has no merges."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.tokenizer_json import TokenizerJson, bpe_tokenizer_json
from tokenloom.errors import TokenizerError

if TYPE_CHECKING:
    import tiktoken

Merge: TypeAlias = tuple[bytes, bytes]

# Contractions, then runs of letters, of digits, of other characters, and of white space; merges stay within a match.
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT2_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
MIN_VOCAB_SIZE = 257  # 256 bytes and <|endoftext|>
_MAX_WORD_BYTES = 128  # during training

_PRINTABLE_BYTES = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHER_BYTES = tuple(byte for byte in range(256) if byte not in _PRINTABLE_BYTES)
# The byte-level alphabet of vocabulary files: printable bytes are themselves, others characters from U+0100 on.
BYTE_TO_CHARACTER = {
    **{byte: chr(byte) for byte in _PRINTABLE_BYTES},
    **{byte: chr(256 + i) for i, byte in enumerate(_OTHER_BYTES)},
}
CHARACTER_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHARACTER.items()}
GPT2_BYTE_ORDER = _PRINTABLE_BYTES + _OTHER_BYTES


class BPETokenizer(Tokenizer):
    """The 256 bytes in the order of `byte_order`, then one token per merge, then <|endoftext|>."""

    def __init__(self, kind: str, byte_order: Sequence[int] = range(256), merges: Sequence[Merge] = ()) -> None:
        tokens = [bytes([byte]) for byte in byte_order] + [left + right for left, right in merges]
        super().__init__(kind, [*tokens, ENDOFTEXT.encode()], eot_id=len(tokens))
        self.merges = list(merges)

    def definition(self) -> bytes:
        pattern = GPT2_PATTERN.encode() if self.merges else b""
        return pattern + b"".join([len(token).to_bytes(4, "little") + token for token in self.token_bytes])

    def encode_ordinary(self, text: str) -> np.ndarray:
        if not self.merges:
            return self._id_of_byte[np.frombuffer(text.encode("utf-8"), dtype=np.uint8)]
        return self._encoding.encode_to_numpy(text, disallowed_special=()).astype(np.uint32, copy=False)

    def to_json(self) -> TokenizerJson:
        vocab = {to_byte_level(token): i for i, token in enumerate(self.token_bytes[: self.eot_id])}
        return bpe_tokenizer_json(
            vocab={**vocab, self.eot_text: self.eot_id},
            merges=[[to_byte_level(left), to_byte_level(right)] for left, right in self.merges],
            eot_text=self.eot_text,
            byte_fallback=False,
            pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        )

    @cached_property
    def _id_of_byte(self) -> np.ndarray:
        return np.array([self._byte_ids[byte] for byte in range(256)], dtype=np.uint32)

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        import tiktoken

        # tiktoken first applies the merge whose result has the lowest id. For merges in the order of training, that
        # is their order, and no result is reachable through another pair.
        ranks = {token: rank for rank, token in enumerate(self.token_bytes[: self.eot_id])}
        return tiktoken.Encoding(self.kind, pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})


def to_byte_level(token: bytes) -> str:
    """A token in the byte-level alphabet of vocabulary files."""
    return "".join([BYTE_TO_CHARACTER[byte] for byte in token])


def from_byte_level(text: str) -> bytes:
    """The bytes of a token in the byte-level alphabet; raises KeyError for any other character."""
    return bytes([CHARACTER_TO_BYTE[character] for character in text])


def parse_merge(pair: Sequence[str]) -> Merge:
    """A merge from two tokens in the byte-level alphabet."""
    left, right = pair
    return from_byte_level(left), from_byte_level(right)


def byte_tokenizer() -> BPETokenizer:
    """Ids 0 to 255 are the bytes themselves; 256 is <|endoftext|>."""
    return BPETokenizer("byte")


@cache
def gpt2_tokenizer() -> BPETokenizer:
    """GPT-2's tokenizer with 50,257 tokens, from the merge list in this package; needs no network."""
    compressed = resources.files("tokenloom.data").joinpath("assets/gpt2-vocab.bpe.gz").read_bytes()
    merge_list = gzip.decompress(compressed)
    if hashlib.sha256(merge_list).hexdigest() != GPT2_MERGES_SHA256:
        raise TokenizerError("the bundled GPT-2 merge list is corrupt. Reinstall tokenloom.")
    lines = merge_list.decode("utf-8").splitlines()[1:]  # the first line is a version
    return BPETokenizer("gpt2", GPT2_BYTE_ORDER, [parse_merge(line.split(" ")) for line in lines])


def train_bpe(vocab_size: int, texts: Iterable[str]) -> BPETokenizer:
    """Train a tokenizer of `vocab_size` tokens, which include the 256 bytes and <|endoftext|>.

    The result is deterministic. A text too short for so many merges gives fewer tokens.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    if vocab_size < MIN_VOCAB_SIZE:
        raise TokenizerError(
            f"bpe:{vocab_size} is too small: the 256 bytes and {ENDOFTEXT} are {MIN_VOCAB_SIZE} tokens. Try bpe:2048."
        )
    core = tokenizers.Tokenizer(models.BPE())
    # The cost of a merge is quadratic in the length of a word, and text without spaces is a single word.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    short_words = pre_tokenizers.Split(tokenizers.Regex(f".{{{_MAX_WORD_BYTES}}}"), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([byte_level, short_words])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    core.train_from_iterator(texts, trainer)
    merges: list[list[str]] = json.loads(core.to_str())["model"]["merges"]
    return BPETokenizer("bpe", merges=[parse_merge(merge) for merge in merges])
