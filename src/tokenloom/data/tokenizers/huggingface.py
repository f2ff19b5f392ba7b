"""Tokenizers from a Hugging Face tokenizer.json, accepted only if they are lossless."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from tokenloom.data.tokenizers.bpe import CHARACTER_TO_BYTE, from_byte_level
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.tokenizer_json import AddedTokenJson, Component, TokenizerJson
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

    A normalizer that only composes characters (NFC, as Qwen3 has it) is not applied: text in NFC has the same ids, and
    other text is kept as it is; `notices` says so.

    `name` is the file's name for errors. `eos_token` ends a document; without it, the first of the common names that is
    in the vocabulary.
    """

    def __init__(
        self, content: TokenizerJson, name: str, eos_token: str | None = None, bos_token: str | None = None
    ) -> None:
        import tokenizers

        self._content: TokenizerJson = {**content, "truncation": None, "padding": None}
        added = self._content.get("added_tokens") or []
        lossless: TokenizerJson = {**self._content}
        if (content.get("normalizer") or {}).get("type") == "NFC":
            lossless["normalizer"] = None
            self.notices = ("the tokenizer's normalizer (NFC) is not applied: decomposed characters are kept",)
        _check_components(lossless, name)
        try:
            core = tokenizers.Tokenizer.from_str(json.dumps(lossless))
            eot_text = _find_eot_text(core, name, eos_token)
            # Only the token that ends a document can be encoded as text, so the library gets it as the only special
            # one; `encode_array` handles it. All other added tokens are matched wherever they occur.
            tokens = [{**token, "special": token["content"] == eot_text} for token in added]
            self._core = tokenizers.Tokenizer.from_str(json.dumps({**lossless, "added_tokens": tokens}))
        except TokenizerError:
            raise
        except Exception as error:  # the library raises no more specific type
            raise TokenizerError(f"{name} is not a valid tokenizer.json: {error}. Export it again.") from None
        self._core.encode_special_tokens = True
        _check_added_tokens(core, added, eot_text, name)
        token_bytes = _token_bytes(core.get_vocab(with_added_tokens=True), {token["id"] for token in added}, name)
        special_ids = {token["id"] for token in added if token["special"]}
        super().__init__("json", token_bytes, core.get_vocab()[eot_text], special_ids)
        if bos_token is not None:
            self.bos_id = core.get_vocab().get(bos_token, self.eot_id)
        self._matched = tuple(token["content"] for token in added)
        self._check_round_trip(name)

    @property
    def matched_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([self.eot_text, *self._matched]))

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
                    "Choose a byte-level tokenizer, such as gpt2.",
                    topic="lossy tokenizer",
                )


def _check_components(content: TokenizerJson, name: str) -> None:
    """Raise `TokenizerError` for a component that is known to be lossy, which is clearer than the text it changes."""
    normalizers = [component["type"] for component in _flatten(content.get("normalizer"), "normalizers")]
    if normalizers:
        raise TokenizerError(
            f"{name} is not lossless: it changes text before encoding it (normalizer {normalizers[0]}). "
            "Choose a byte-level tokenizer without a normalizer, such as gpt2.",
            topic="lossy tokenizer",
        )
    pre_tokenizers = {
        str(component["type"]): component for component in _flatten(content.get("pre_tokenizer"), "pretokenizers")
    }
    if "ByteLevel" not in pre_tokenizers:
        actual = f"its pre-tokenizer is {', '.join(pre_tokenizers)}" if pre_tokenizers else "it has no pre-tokenizer"
        raise TokenizerError(
            f"{name} is not byte-level: {actual}, not ByteLevel. Choose a byte-level tokenizer, such as gpt2.",
            topic="lossy tokenizer",
        )
    if pre_tokenizers["ByteLevel"].get("add_prefix_space"):
        raise TokenizerError(
            f"{name} is not lossless: it puts a space before every text (add_prefix_space). "
            "Set add_prefix_space to false, or choose another tokenizer.",
            topic="lossy tokenizer",
        )
    if (content.get("model") or {}).get("dropout"):
        raise TokenizerError(f"{name} omits merges at random (dropout). Set dropout to null.")
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
        tokens[token_id] = text.encode("utf-8") if token_id in added else _bytes_of_token(text)
    return tokens


def _bytes_of_token(text: str) -> bytes:
    is_byte_level = all(character in CHARACTER_TO_BYTE for character in text)
    return from_byte_level(text) if is_byte_level else text.encode("utf-8")


def _find_eot_text(core: tokenizers.Tokenizer, name: str, eos_token: str | None) -> str:
    for candidate in (*([eos_token] if eos_token else []), *_EOT_NAMES):
        if core.token_to_id(candidate) is not None:
            return candidate
    raise TokenizerError(
        f"{name} has no token that ends a document (one of {', '.join(_EOT_NAMES)}). Add {ENDOFTEXT} to it."
    )


def _check_added_tokens(core: tokenizers.Tokenizer, added: Sequence[AddedTokenJson], eot_text: str, name: str) -> None:
    """Raise `TokenizerError` for an added token whose ids would not be those of `AutoTokenizer`, or not lossless."""
    vocab = core.get_vocab(with_added_tokens=False)
    for token in added:
        text, token_id = token["content"], core.token_to_id(token["content"])
        problem = None
        if token_id != token["id"]:
            problem = (
                f"has the id {token['id']:,}, but the tokenizers library assigns {token_id}: ids must have no gaps"
            )
        elif token["lstrip"] or token["rstrip"]:
            problem = f"removes the spaces beside it ({'lstrip' if token['lstrip'] else 'rstrip'}), so text is lost"
        elif text == eot_text and token["single_word"]:
            problem = "ends a document, but is matched between spaces and punctuation only (single_word)"
        elif text != eot_text and (text in eot_text or eot_text in text):
            problem = f"overlaps with {eot_text}, which ends a document"
        elif text in vocab and _bytes_of_token(text) != text.encode("utf-8"):
            problem = "is also a token of the vocabulary that stands for other text"
        if problem:
            raise TokenizerError(
                f"{name} cannot be used: its added token {text!r} {problem}. Remove it, or choose another tokenizer."
            )
