"""A tokenizer and a few tokens more, such as <|user|>: names for what text alone does not say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer, special_token_json
from tokenloom.errors import TokenizerError


class AddedTokens(Tokenizer):
    """The tokens of `base` under the ids they had, then one for each of `added`, found whole wherever it is written.

    Raises `TokenizerError` for an added token that is empty, is there already, or holds or is part of the token that
    ends a document.
    """

    def __init__(self, base: Tokenizer, added: Sequence[str]) -> None:
        self.base = base
        known = set(base.token_bytes)
        for token in added:
            if not token or token.encode("utf-8") in known:
                raise TokenizerError(f"{token!r} cannot be added: it is {'a token already' if token else 'empty'}.")
            if token in base.eot_text or base.eot_text in token:
                raise TokenizerError(f"{token!r} cannot be added: {base.eot_text} ends a document. Choose another.")
            known.add(token.encode("utf-8"))
        first = base.vocab_size
        super().__init__(
            base.kind,
            [*base.token_bytes, *(token.encode("utf-8") for token in added)],
            base.eot_id,
            [*base.special_ids, *range(first, first + len(added))],
        )
        self.added = tuple(added)
        self._ids = {token: first + i for i, token in enumerate(added)}
        self._pattern = _any_of(added)

    def _description(self) -> bytes:
        return b"\0".join([self.base._description(), *(token.encode("utf-8") for token in self.added)])

    def _encode_plain(self, text: str) -> np.ndarray:
        # Split at a group, the pieces between added tokens and the tokens themselves take turns.
        pieces = self._pattern.split(text)
        if len(pieces) == 1:
            return self.base._encode_plain(text)
        ids = [
            np.array([self._ids[piece]], dtype=np.uint32) if odd else self.base._encode_plain(piece)
            for i, piece in enumerate(pieces)
            if (odd := i % 2) or piece
        ]
        return np.concatenate(ids)

    def to_json(self) -> dict[str, Any]:
        content = self.base.to_json()
        entries = [special_token_json(token_id, token) for token, token_id in self._ids.items()]
        return {**content, "added_tokens": [*(content.get("added_tokens") or ()), *entries]}


def with_added(tokenizer: Tokenizer, added: Sequence[str]) -> Tokenizer:
    """The tokenizer itself where nothing is added; raises as `AddedTokens`."""
    if not added:
        return tokenizer
    if isinstance(tokenizer, AddedTokens):
        return AddedTokens(tokenizer.base, [*tokenizer.added, *added])
    return AddedTokens(tokenizer, added)


def between_tokens(texts: Iterable[str], added: Sequence[str]) -> Iterator[str]:
    """The text between added tokens, from which a vocabulary is learned."""
    pattern = _any_of([ENDOFTEXT, *added])
    return (piece for text in texts for piece in pattern.split(text)[::2])


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """Where one token begins with another, the longer one is found."""
    return re.compile(f"({'|'.join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))})")
