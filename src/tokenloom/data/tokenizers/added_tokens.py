"""Tokenizers with added tokens, such as <|user|>, which are matched as a whole wherever they occur."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.tokenizer_json import TokenizerJson, special_token
from tokenloom.errors import TokenizerError


class ExtendedTokenizer(Tokenizer):
    """The tokens of `base` with unchanged ids, followed by the tokens in `added`.

    Raises `TokenizerError` for an added token that is empty, is already a token, or contains or is part of the
    token that ends a document.
    """

    def __init__(self, base: Tokenizer, added: Sequence[str]) -> None:
        self.base = base
        existing = set(base.token_bytes)
        for token in added:
            if any("\ud800" <= character <= "\udfff" for character in token):
                raise TokenizerError(f"{token!r} cannot be added: it is not UTF-8. Choose another token.")
            if not token or token.encode("utf-8") in existing:
                raise TokenizerError(f"{token!r} cannot be added: it is {'already a token' if token else 'empty'}.")
            if token in base.eot_text or base.eot_text in token:
                raise TokenizerError(
                    f"{token!r} cannot be added: {base.eot_text} marks the end of a document. Choose another token."
                )
            existing.add(token.encode("utf-8"))
        first = base.vocab_size
        super().__init__(
            base.kind,
            [*base.token_bytes, *(token.encode("utf-8") for token in added)],
            base.eot_id,
            [*base.special_ids, *range(first, first + len(added))],
        )
        self.bos_id = base.bos_id
        self.added = tuple(added)
        self._ids = {token: first + i for i, token in enumerate(added)}
        self._pattern = _pattern_of(added)

    @property
    def matched_tokens(self) -> tuple[str, ...]:
        return (*self.base.matched_tokens, *self.added)

    def definition(self) -> bytes:
        return b"\0".join([self.base.definition(), *(token.encode("utf-8") for token in self.added)])

    def encode_ordinary(self, text: str) -> np.ndarray:
        # The pattern has a group, so the result alternates between text and added tokens.
        pieces = self._pattern.split(text)
        if len(pieces) == 1:
            return self.base.encode_ordinary(text)
        ids = [
            np.array([self._ids[piece]], dtype=np.uint32) if is_token else self.base.encode_ordinary(piece)
            for i, piece in enumerate(pieces)
            if (is_token := i % 2) or piece
        ]
        return np.concatenate(ids)

    def to_json(self) -> TokenizerJson:
        content = self.base.to_json()
        entries = [special_token(token_id, token) for token, token_id in self._ids.items()]
        return {**content, "added_tokens": [*(content.get("added_tokens") or ()), *entries]}


def extend_tokenizer(tokenizer: Tokenizer, added: Sequence[str]) -> Tokenizer:
    """A tokenizer with added tokens, or the same one if there are none; raises like `ExtendedTokenizer`."""
    if not added:
        return tokenizer
    if isinstance(tokenizer, ExtendedTokenizer):
        return ExtendedTokenizer(tokenizer.base, [*tokenizer.added, *added])
    return ExtendedTokenizer(tokenizer, added)


def text_between_tokens(texts: Iterable[str], added: Sequence[str]) -> Iterator[str]:
    """The text between added tokens, which a vocabulary is trained on."""
    pattern = _pattern_of([ENDOFTEXT, *added])
    return (piece for text in texts for piece in pattern.split(text)[::2])


def _pattern_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """A pattern that matches any of the tokens, and the longer one if one is a prefix of another."""
    return re.compile(f"({'|'.join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))})")
