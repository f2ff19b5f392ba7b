"""The tokenizer.json format of Hugging Face, as far as it is read and written here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Required, TypeAlias, TypedDict

Component: TypeAlias = Mapping[str, object]
"""A normalizer, pre-tokenizer, post-processor or decoder: its "type" and its settings."""


class AddedTokenJson(TypedDict):
    """A token that is matched as a whole before the text between such tokens is encoded."""

    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class ModelJson(TypedDict, total=False):
    """A BPE model. A merge is a pair, or in older files a string with a space between the two."""

    type: str
    dropout: float | None
    unk_token: str | None
    continuing_subword_prefix: str | None
    end_of_word_suffix: str | None
    fuse_unk: bool
    byte_fallback: bool
    ignore_merges: bool
    vocab: Required[Mapping[str, int]]
    merges: Required[list[str | list[str]]]


class TokenizerJson(TypedDict, total=False):
    """The content of a tokenizer.json."""

    version: str
    truncation: Component | None
    padding: Component | None
    added_tokens: list[AddedTokenJson]
    normalizer: Component | None
    pre_tokenizer: Component | None
    post_processor: Component | None
    decoder: Component | None
    model: Required[ModelJson]


def special_token(token_id: int, text: str) -> AddedTokenJson:
    return added_token(token_id, {"content": text, "special": True})


def added_token(token_id: int, settings: Mapping[str, object]) -> AddedTokenJson:
    """An added token with the defaults of the `tokenizers` library; `settings` has at least the content."""
    special = bool(settings.get("special", False))
    return {
        "id": token_id,
        "content": str(settings["content"]),
        "single_word": bool(settings.get("single_word", False)),
        "lstrip": bool(settings.get("lstrip", False)),
        "rstrip": bool(settings.get("rstrip", False)),
        "normalized": bool(settings.get("normalized", not special)),
        "special": special,
    }


def bpe_tokenizer_json(
    *,
    vocab: Mapping[str, int],
    merges: list[str | list[str]],
    eot_text: str,
    byte_fallback: bool,
    pre_tokenizer: Component | None,
    post_processor: Component | None,
    decoder: Component,
) -> TokenizerJson:
    """A tokenizer with a BPE model; `vocab` contains `eot_text`, the only special token."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special_token(vocab[eot_text], eot_text)],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": byte_fallback,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
