"""One token for each character of the training text; bytes for those it never saw."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer, special_token_json


class Characters(Tokenizer):
    """The sorted characters, then the 256 bytes, which spell any other character, then <|endoftext|>."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        tokens = [character.encode("utf-8") for character in self.characters]
        tokens += [bytes([byte]) for byte in range(256)]
        super().__init__("char", [*tokens, ENDOFTEXT.encode()], eot_id=len(tokens))

    def _description(self) -> bytes:
        return ("characters " + "".join(self.characters)).encode("utf-8")

    def _encode_plain(self, text: str) -> np.ndarray:
        code_points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        ids = self._id_of_code_point[code_points]
        unknown = ids < 0
        if unknown.any():
            strange = code_points[unknown]
            lengths = np.ones(len(ids), dtype=np.int64)
            lengths[unknown] += (strange >= 0x80).astype(np.int64) + (strange >= 0x800) + (strange >= 0x10000)
            ids = np.repeat(ids, lengths)
            spelled = strange.tobytes().decode("utf-32-le").encode("utf-8")
            ids[ids < 0] = len(self.characters) + np.frombuffer(spelled, dtype=np.uint8).astype(np.int32)
        return ids.astype(np.uint32)

    @cached_property
    def _id_of_code_point(self) -> np.ndarray:
        """The id of each Unicode code point, -1 for those without one."""
        ids = np.full(0x110000, -1, dtype=np.int32)
        ids[[ord(character) for character in self.characters]] = np.arange(len(self.characters))
        return ids

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        return {byte: len(self.characters) + byte for byte in range(256)}

    def to_json(self) -> dict[str, Any]:
        # A model of merges without merges keeps characters apart and, by byte_fallback, spells the unknown ones.
        names = self.characters + [f"<0x{byte:02X}>" for byte in range(256)] + [self.eot_text]
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [special_token_json(self.eot_id, self.eot_text)],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": {name: i for i, name in enumerate(names)},
                "merges": [],
            },
        }


def learn_characters(texts: Iterable[str]) -> Characters:
    """The characters of the texts."""
    return Characters(set().union(*texts))
