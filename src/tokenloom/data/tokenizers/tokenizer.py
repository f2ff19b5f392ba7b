"""What every tokenizer promises: ids for any text, and the text back byte for byte."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tokenloom.errors import TokenizerError

ENDOFTEXT = "<|endoftext|>"
EndOfText = Literal["token", "text", "refuse"]

_DOCUMENTS_AT_ONCE = 256


class Tokenizer(ABC):
    """A vocabulary of byte strings and the rule that cuts text into them.

    `token_bytes[id]` is the text behind an id, so decoding is the same for every kind; only encoding differs.
    """

    added: tuple[str, ...] = ()
    """Tokens that were added to a vocabulary that was there before (`AddedTokens`)."""

    def __init__(self, kind: str, token_bytes: Sequence[bytes], eot_id: int, special_ids: Iterable[int] = ()) -> None:
        self.kind = kind
        self.token_bytes = list(token_bytes)
        self.vocab_size = len(self.token_bytes)
        self.eot_id = eot_id
        self.eot_text = self.token_bytes[eot_id].decode("utf-8")
        self.special_ids = sorted({eot_id, *special_ids})

    @abstractmethod
    def _description(self) -> bytes:
        """Everything that decides which ids a text gets."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The content of a Hugging Face tokenizer.json that gives the same ids."""

    @abstractmethod
    def _encode_plain(self, text: str) -> np.ndarray:
        """The ids (uint32) of a text in which nothing is special; UnicodeEncodeError for a lone surrogate."""

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 of what it does: equal fingerprints give equal ids for every text."""
        return hashlib.sha256(self._description()).hexdigest()

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """The bytes of text that each id stands for, (vocab_size,) int64; 0 for special tokens."""
        lengths = np.array([len(token) for token in self.token_bytes], dtype=np.int64)
        lengths[self.special_ids] = 0
        return lengths

    def encode(self, text: str, endoftext: EndOfText = "token") -> list[int]:
        """The ids of a text; `endoftext` says what "<|endoftext|>" written in it becomes.

        Raises `TokenizerError` for a lone surrogate, and for a written "<|endoftext|>" where that is "refuse".
        """
        return self.encode_array(text, endoftext).tolist()

    def encode_array(self, text: str, endoftext: EndOfText = "token") -> np.ndarray:
        """As `encode`, as a uint32 array: the fast way for long texts."""
        try:
            if endoftext == "text" or self.eot_text not in text:
                return self._encode_plain(text)
            if endoftext == "refuse":
                raise TokenizerError(
                    f"the text contains {self.eot_text} at character {text.index(self.eot_text):,}. "
                    'Remove it, or choose whether it is a "token" or "text".'
                )
            ends = np.array([self.eot_id], dtype=np.uint32)
            parts = ([ends, self._encode_plain(part)] for part in text.split(self.eot_text))
            return np.concatenate([ids for part in parts for ids in part][1:])
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"the text holds the lone surrogate {error.object[error.start]!a} at character {error.start:,}, "
                'which UTF-8 cannot write. Remove it, or decode the text with errors="replace".'
            ) from None

    def encode_documents(self, texts: Iterable[str], endoftext: EndOfText = "token") -> Iterator[np.ndarray]:
        """The ids of each text in turn, many encoded at once by threads: the cores release the GIL."""
        from concurrent.futures import ThreadPoolExecutor

        remaining = iter(texts)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            while batch := list(itertools.islice(remaining, _DOCUMENTS_AT_ONCE)):
                yield from threads.map(self.encode_array, batch, itertools.repeat(endoftext))

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """The ids of arbitrary bytes; those that are not UTF-8 become single-byte tokens."""
        ids, start = [np.empty(0, dtype=np.uint32)], 0
        text = data.decode("utf-8", "surrogateescape")
        for position, character in enumerate(text):
            if "\udc80" <= character <= "\udcff":
                ids += [self._encode_plain(text[start:position]), np.array([self._byte_ids[ord(character) - 0xDC00]])]
                start = position + 1
        return np.concatenate([*ids, self._encode_plain(text[start:])]).astype(np.uint32)

    def decode(self, ids: Iterable[int] | np.ndarray, errors: str = "replace") -> str:
        """The text of the ids; bytes that are not UTF-8, such as half a character, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """The bytes of the ids, "<|endoftext|>" included; raises `TokenizerError` for an id outside the vocabulary."""
        wanted = [int(i) for i in ids]
        if wanted and (min(wanted) < 0 or max(wanted) >= self.vocab_size):
            stranger = next(i for i in wanted if not 0 <= i < self.vocab_size)
            raise TokenizerError(f"token {stranger} is outside the vocabulary of {self.vocab_size:,}. Check the model.")
        return b"".join([self.token_bytes[i] for i in wanted])

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `load_tokenizer` and Hugging Face both open."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.eot_text,
            "eos_token": self.eot_text,
            "unk_token": self.eot_text,  # never met, for every byte is known; converters ask for it as GPT-2 has it
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "tokenloom": {
                "kind": self.kind,
                "fingerprint": self.fingerprint,
                **({"added": self.added} if self.added else {}),
            },
        }
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {"tokenizer.json": self.to_json(), "tokenizer_config.json": config}.items():
            text = json.dumps(content, ensure_ascii=False, indent=1)
            (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        """The id of each single byte."""
        # Reversed: where a character and a byte of the same value both have a token, the first one stands.
        return {token[0]: i for i, token in reversed(list(enumerate(self.token_bytes))) if len(token) == 1}


def special_token_json(token_id: int, text: str) -> dict[str, Any]:
    """An entry of `added_tokens` in a tokenizer.json."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": text, **plain, "special": True}
