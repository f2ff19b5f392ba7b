"""The char tokenizer: one token per character of the training text, and bytes for all other characters."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Self

import numpy as np

from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.tokenizer_json import TokenizerJson, bpe_tokenizer_json


class CharacterTokenizer(Tokenizer):
    """The sorted characters, then the 256 bytes, which encode all other characters, then <|endoftext|>."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        tokens = [character.encode("utf-8") for character in self.characters]
        tokens += [bytes([byte]) for byte in range(256)]
        super().__init__("char", [*tokens, ENDOFTEXT.encode()], eot_id=len(tokens))

    @classmethod
    def train(cls, texts: Iterable[str]) -> Self:
        """The tokenizer whose characters are those of the texts."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        return cls(characters)

    def definition(self) -> bytes:
        return ("characters " + "".join(self.characters)).encode("utf-8")

    def encode_ordinary(self, text: str) -> np.ndarray:
        code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        ids = self._id_of_code_point[code_points]
        is_other = ids < 0
        if is_other.any():
            others = code_points[is_other]
            lengths = np.ones(len(ids), dtype=np.int64)  # tokens per character
            lengths[is_other] += (others >= 0x80).astype(np.int64) + (others >= 0x800) + (others >= 0x10000)
            ids = np.repeat(ids, lengths)
            other_bytes = others.tobytes().decode("utf-32-le").encode("utf-8")
            ids[ids < 0] = len(self.characters) + np.frombuffer(other_bytes, dtype=np.uint8).astype(np.int32)
        return ids.astype(np.uint32)

    def to_json(self) -> TokenizerJson:
        # A BPE model without merges: each character is a token, and byte_fallback encodes the others.
        names = [*self.characters, *(f"<0x{byte:02X}>" for byte in range(256)), self.eot_text]
        return bpe_tokenizer_json(
            vocab={name: i for i, name in enumerate(names)},
            merges=[],
            eot_text=self.eot_text,
            byte_fallback=True,
            pre_tokenizer=None,
            post_processor=None,
            decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        )

    @cached_property
    def _id_of_code_point(self) -> np.ndarray:
        """The id of each Unicode code point, -1 for those without a token."""
        ids = np.full(0x110000, -1, dtype=np.int32)
        ids[[ord(character) for character in self.characters]] = np.arange(len(self.characters))
        return ids

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        return {byte: len(self.characters) + byte for byte in range(256)}
