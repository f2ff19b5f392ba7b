"""The interface of all tokenizers: token ids for any text, and the same text back, byte for byte."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from tokenloom.data.tokenizers.chunking import MAX_CHUNK_CHARACTERS, split_into_chunks
from tokenloom.data.tokenizers.tokenizer_json import TokenizerJson
from tokenloom.errors import TokenizerError

ENDOFTEXT = "<|endoftext|>"
EndOfText = Literal["token", "text", "refuse"]

_BATCH_DOCUMENTS = 256


class Tokenizer(ABC):
    """A vocabulary of byte strings and a rule that encodes text with it.

    `token_bytes[id]` are the bytes of a token, so decoding is the same for every kind; subclasses define encoding.
    `eot_id` separates documents. `bos_id` is saved for other programs; it is `eot_id`, except in imported tokenizers.
    """

    added: tuple[str, ...] = ()
    """Tokens that were added to the vocabulary of another tokenizer (`ExtendedTokenizer`)."""

    notices: Sequence[str] = ()
    """What the user should know about an imported tokenizer."""

    def __init__(self, kind: str, token_bytes: Sequence[bytes], eot_id: int, special_ids: Iterable[int] = ()) -> None:
        self.kind = kind
        self.token_bytes = list(token_bytes)
        self.vocab_size = len(self.token_bytes)
        self.eot_id = eot_id
        self.bos_id = eot_id
        self.eot_text = self.token_bytes[eot_id].decode("utf-8")
        self.special_ids = sorted({eot_id, *special_ids})

    @property
    def matched_tokens(self) -> tuple[str, ...]:
        """The tokens that are matched as a whole, before the text between them is encoded."""
        return (self.eot_text, *self.added)

    @abstractmethod
    def definition(self) -> bytes:
        """Everything that the ids of a text depend on, in a canonical form."""

    @abstractmethod
    def to_json(self) -> TokenizerJson:
        """The content of a Hugging Face tokenizer.json that gives the same ids."""

    @abstractmethod
    def encode_ordinary(self, text: str) -> np.ndarray:
        """The ids (uint32) of a text of at most `MAX_CHUNK_CHARACTERS`, <|endoftext|> read as text.

        Raises UnicodeEncodeError for a lone surrogate.
        """

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of `definition()`: tokenizers with equal fingerprints give equal ids for every text."""
        return hashlib.sha256(self.definition()).hexdigest()

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """The number of bytes of text per token, (vocab_size,) int64; 0 for special tokens."""
        lengths = np.array([len(token) for token in self.token_bytes], dtype=np.int64)
        lengths[self.special_ids] = 0
        return lengths

    def encode(self, text: str, endoftext: EndOfText = "token") -> list[int]:
        """The ids of a text; `endoftext` decides whether "<|endoftext|>" in it becomes the token or text, or raises.

        Raises `TokenizerError` for a lone surrogate, and for "<|endoftext|>" if `endoftext` is "refuse".
        """
        return self.encode_array(text, endoftext).tolist()

    def encode_array(self, text: str, endoftext: EndOfText = "token") -> np.ndarray:
        """Like `encode`, but returns a uint32 array, which is faster for long texts.

        Text that has no position to split at in `MAX_CHUNK_CHARACTERS` is split as in preparing data.
        """
        if endoftext == "refuse" and self.eot_text in text:
            raise TokenizerError(
                f"the text contains {self.eot_text} at character {text.index(self.eot_text):,}. "
                'Remove it, or choose whether it becomes a "token" or "text".'
            )
        try:
            if len(text) <= MAX_CHUNK_CHARACTERS:
                return self._encode_chunk(text, endoftext)
            chunks = split_into_chunks([text], self.matched_tokens)
            return np.concatenate([self._encode_chunk(chunk, endoftext) for chunk in chunks])
        except UnicodeEncodeError as error:
            surrogate = error.object[error.start]
            raise TokenizerError(
                f"the text contains the lone surrogate {surrogate!a} at character {text.index(surrogate):,}, "
                'which cannot be encoded as UTF-8. Remove it, or decode the text with errors="replace".'
            ) from None

    def encode_documents(self, texts: Iterable[str], endoftext: EndOfText = "token") -> Iterator[np.ndarray]:
        """The ids of each text, in order, encoded by several threads: the tokenizer libraries release the GIL."""
        from concurrent.futures import ThreadPoolExecutor

        remaining = iter(texts)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            while batch := list(itertools.islice(remaining, _BATCH_DOCUMENTS)):
                yield from threads.map(self.encode_array, batch, itertools.repeat(endoftext))

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """The ids of arbitrary bytes; bytes that are not valid UTF-8 become single-byte tokens."""
        ids, start = [np.empty(0, dtype=np.uint32)], 0
        text = data.decode("utf-8", "surrogateescape")
        for position, character in enumerate(text):
            if "\udc80" <= character <= "\udcff":
                byte = ord(character) - 0xDC00
                ids += [self.encode_array(text[start:position], "text"), np.array([self._byte_ids[byte]])]
                start = position + 1
        return np.concatenate([*ids, self.encode_array(text[start:], "text")]).astype(np.uint32)

    def decode(self, ids: Iterable[int] | np.ndarray, errors: str = "replace") -> str:
        """The text of the ids; bytes that are not valid UTF-8, such as half of a character, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids: Iterable[int] | np.ndarray) -> bytes:
        """The bytes of the ids, including "<|endoftext|>"; raises `TokenizerError` for an id out of range."""
        token_ids = [int(i) for i in ids]
        if token_ids and (min(token_ids) < 0 or max(token_ids) >= self.vocab_size):
            invalid = next(i for i in token_ids if not 0 <= i < self.vocab_size)
            raise TokenizerError(
                f"token {invalid} is outside the vocabulary of {self.vocab_size:,} tokens. "
                "Use the tokenizer that the model was trained with."
            )
        return b"".join([self.token_bytes[i] for i in token_ids])

    def config_json(self) -> dict[str, object]:
        """The content of a Hugging Face tokenizer_config.json."""
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.token_bytes[self.bos_id].decode("utf-8"),
            "eos_token": self.eot_text,
            "unk_token": self.eot_text,  # never used, since every byte has a token, but converters require it
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "tokenloom": {
                "kind": self.kind,
                "fingerprint": self.fingerprint,
                **({"added": self.added} if self.added else {}),
            },
        }

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `load_tokenizer` and Hugging Face's libraries read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {"tokenizer.json": self.to_json(), "tokenizer_config.json": self.config_json()}.items():
            text = json.dumps(content, ensure_ascii=False, indent=1)
            (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")

    def _encode_chunk(self, text: str, endoftext: EndOfText) -> np.ndarray:
        if endoftext == "text" or self.eot_text not in text:
            return self.encode_ordinary(text)
        eot = np.array([self.eot_id], dtype=np.uint32)
        parts = ([eot, self.encode_ordinary(part)] for part in text.split(self.eot_text))
        return np.concatenate([ids for part in parts for ids in part][1:])

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        """The id of each single-byte token."""
        # Reversed, so that the first one is used if a character and a byte of the same value both have a token.
        return {token[0]: i for i, token in reversed(list(enumerate(self.token_bytes))) if len(token) == 1}
