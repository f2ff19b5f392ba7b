"""Tokenizers from a Hugging Face tokenizer.json, accepted only if they are lossless."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from tokenloom.data.tokenizers.bpe import CHARACTER_TO_BYTE, from_byte_level
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.tokenizer_json import Component, TokenizerJson
from tokenloom.errors import TokenizerError

if TYPE_CHECKING:
    import tokenizers

# Tokens that separate documents in common vocabularies, the most likely first.
_EOT_NAMES = (ENDOFTEXT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<|endofdocument|>", "</s>", "<eos>", "[EOS]")

# What lossy tokenizers lose: spaces, line ends, control characters, composed and decomposed accents, other scripts.
_ROUND_TRIP_TEXTS = (
    " a  b\t\tc \r\n\r d\n\n\n e ",
    "It's 1,234.5 things--isn't it? \u00e9 e\u0301 \ufb01 \u2126 \uff21",
    "".join(map(chr, range(1, 0x180))),
    "\x00 \u3000\u00a0\u200b 中文字 кириллица עברית 👩\u200d🚀",
)
_EXCERPT_CHARACTERS = 12


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer.json run by the `tokenizers` library; raises `TokenizerError` if it is not lossless.

    `name` is the file's name for errors, `eos_token` a token that ends a document besides the common ones.
    """

    def __init__(self, content: TokenizerJson, name: str, eos_token: str | None = None) -> None:
        import tokenizers

        self._content: TokenizerJson = {**content, "truncation": None, "padding": None}
        _check_components(self._content, name)
        try:
            self._core = tokenizers.Tokenizer.from_str(json.dumps(self._content))
        except Exception as error:  # the library raises no more specific type
            raise TokenizerError(f"{name} is not a valid tokenizer.json: {error}. Export it again.") from None
        # Special tokens in a text are encoded as text; `encode_array` handles the end of a document.
        self._core.encode_special_tokens = True
        added = self._core.get_added_tokens_decoder()
        token_bytes = _token_bytes(self._core.get_vocab(with_added_tokens=True), added, name)
        special_ids = {token_id for token_id, token in added.items() if token.special}
        super().__init__("json", token_bytes, _find_eot_id(self._core, name, eos_token), special_ids)
        self._check_round_trip(name)

    def definition(self) -> bytes:
        return f"{self.eot_id} {json.dumps(self._content, sort_keys=True)}".encode()

    def to_json(self) -> TokenizerJson:
        return {**self._content}

    def encode_ordinary(self, text: str) -> np.ndarray:
        text.encode("utf-8")  # raises UnicodeEncodeError for a lone surrogate, for which the library raises TypeError
        encoding = self._core.encode_batch_fast([text], add_special_tokens=False)[0]
        return np.array(encoding.ids, dtype=np.uint32)

    def _check_round_trip(self, name: str) -> None:
        for text in _ROUND_TRIP_TEXTS:
            decoded = self.decode(self.encode_ordinary(text))
            if decoded != text:
                pairs = enumerate(zip(text, decoded, strict=False))
                start = next((i for i, (a, b) in pairs if a != b), len(decoded))
                end = start + _EXCERPT_CHARACTERS
                raise TokenizerError(
                    f"{name} is not lossless: {text[start:end]!r} is decoded as {decoded[start:end]!r}. "
                    "Choose a byte-level tokenizer, such as gpt2."
                )


def _check_components(content: TokenizerJson, name: str) -> None:
    """Raise `TokenizerError` for a component that is known to be lossy, which is clearer than the text it changes."""
    normalizers = [component["type"] for component in _flatten(content.get("normalizer"), "normalizers")]
    if normalizers:
        raise TokenizerError(
            f"{name} is not lossless: it changes text before encoding it (normalizer {normalizers[0]}). "
            "Choose a byte-level tokenizer without a normalizer, such as gpt2."
        )
    pre_tokenizers = {
        str(component["type"]): component for component in _flatten(content.get("pre_tokenizer"), "pretokenizers")
    }
    if "ByteLevel" not in pre_tokenizers:
        actual = f"its pre-tokenizer is {', '.join(pre_tokenizers)}" if pre_tokenizers else "it has no pre-tokenizer"
        raise TokenizerError(
            f"{name} is not byte-level: {actual}, not ByteLevel. Choose a byte-level tokenizer, such as gpt2."
        )
    if pre_tokenizers["ByteLevel"].get("add_prefix_space"):
        raise TokenizerError(
            f"{name} is not lossless: it puts a space before every text (add_prefix_space). "
            "Set add_prefix_space to false, or choose another tokenizer."
        )
    vocab: object = (content.get("model") or {}).get("vocab")
    if isinstance(vocab, dict):  # other models than BPE have a list
        missing = [byte for character, byte in CHARACTER_TO_BYTE.items() if character not in vocab]
        if missing:
            raise TokenizerError(
                f"{name} is not lossless: it has no token for {len(missing)} of the 256 bytes, such as "
                f"0x{min(missing):02x}. Train it again with the whole byte-level alphabet."
            )


def _flatten(component: object, key: str) -> Iterator[Component]:
    """A component of a tokenizer.json, or those of a Sequence, which has them under `key`."""
    if not isinstance(component, Mapping):
        return
    settings = cast("Component", component)
    if settings.get("type") == "Sequence":
        for inner in cast("list[object] | None", settings.get(key)) or ():
            yield from _flatten(inner, key)
    else:
        yield {"type": "unknown", **settings}


def _token_bytes(vocab: Mapping[str, int], added: Container[int], name: str) -> list[bytes]:
    if len(set(vocab.values())) < len(vocab):
        raise TokenizerError(f"{name} has several tokens with the same id. Export it again.")
    tokens = [b""] * (max(vocab.values(), default=-1) + 1)
    for text, token_id in vocab.items():
        is_byte_level = token_id not in added and all(character in CHARACTER_TO_BYTE for character in text)
        tokens[token_id] = from_byte_level(text) if is_byte_level else text.encode("utf-8")
    return tokens


def _find_eot_id(core: tokenizers.Tokenizer, name: str, eos_token: str | None) -> int:
    for candidate in (*_EOT_NAMES, *([eos_token] if eos_token else [])):
        token_id = core.token_to_id(candidate)
        if token_id is not None:
            return token_id
    raise TokenizerError(
        f"{name} has no token that ends a document (one of {', '.join(_EOT_NAMES)}). Add {ENDOFTEXT} to it."
    )
