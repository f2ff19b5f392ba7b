"""A Hugging Face tokenizer.json, accepted if it gives text back byte for byte."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np

from tokenloom.data.tokenizers.bpe import BYTE_OF_CHARACTER, from_characters
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.errors import TokenizerError

# What separates documents in the vocabularies people use, likeliest first.
_END_NAMES = (ENDOFTEXT, "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<|endofdocument|>", "</s>", "<eos>", "[EOS]")

# Spaces, line ends, controls, accents composed and not, other scripts: what lossy tokenizers lose.
_PROBES = (
    " a  b\t\tc \r\n\r d\n\n\n e ",
    "It's 1,234.5 things--isn't it? \u00e9 e\u0301 \ufb01 \u2126 \uff21",
    "".join(map(chr, range(1, 0x180))),
    "\x00 \u3000\u00a0\u200b 中文字 кириллица עברית 👩\u200d🚀",
)


class HuggingFaceTokenizer(Tokenizer):
    """The core of `tokenizers` over somebody's tokenizer.json; raises `TokenizerError` if it loses any text."""

    def __init__(self, content: Mapping[str, Any], name: str, end_name: str | None = None) -> None:
        from tokenizers import Tokenizer as Core

        self._content = {**content, "truncation": None, "padding": None}
        _refuse_lossy_parts(self._content, name)
        try:
            self._core = Core.from_str(json.dumps(self._content))
        except Exception as error:  # the library raises nothing more precise
            raise TokenizerError(f"{name} is not a tokenizer.json: {error}. Export it again.") from None
        # Only the end of a document is special here, and `encode_array` sees to it; all else is text.
        self._core.encode_special_tokens = True
        added = self._core.get_added_tokens_decoder()
        tokens = _token_bytes(self._core.get_vocab(with_added_tokens=True), added, name)
        special = {token_id for token_id, token in added.items() if token.special}
        super().__init__("json", tokens, _end_id(self._core, name, end_name), special)
        self._refuse_unless_exact(name)

    def _description(self) -> bytes:
        return f"{self.eot_id} {json.dumps(self._content, sort_keys=True)}".encode()

    def to_json(self) -> dict[str, Any]:
        return dict(self._content)

    def _encode_plain(self, text: str) -> np.ndarray:
        text.encode("utf-8")  # the core's own answer to a lone surrogate is a TypeError
        encoding = self._core.encode_batch_fast([text], add_special_tokens=False)[0]
        return np.array(encoding.ids, dtype=np.uint32)

    def _refuse_unless_exact(self, name: str) -> None:
        for probe in _PROBES:
            back = self.decode(self._encode_plain(probe))
            if back != probe:
                at = next((i for i, (a, b) in enumerate(zip(probe, back, strict=False)) if a != b), len(back))
                raise TokenizerError(
                    f"{name} does not give text back unchanged: {probe[at : at + 12]!r} came back as "
                    f"{back[at : at + 12]!r}. Choose a byte-level tokenizer, such as gpt2."
                )


def _refuse_lossy_parts(content: Mapping[str, Any], name: str) -> None:
    """Name the part that changes text, which reads better than the text it changed."""
    normalizers = [part["type"] for part in _parts(content.get("normalizer"), "normalizers")]
    if normalizers:
        raise TokenizerError(
            f"{name} changes text before encoding it (normalizer {normalizers[0]}), so that it cannot be given back "
            "exactly. Choose a byte-level tokenizer without one, such as gpt2."
        )
    steps = {part["type"]: part for part in _parts(content.get("pre_tokenizer"), "pretokenizers")}
    if "ByteLevel" not in steps:
        found = f"its pre-tokenizer is {', '.join(steps)}" if steps else "it has no pre-tokenizer"
        raise TokenizerError(
            f"{name} does not work on bytes: {found}, not ByteLevel. Choose a byte-level tokenizer, such as gpt2."
        )
    if steps["ByteLevel"].get("add_prefix_space"):
        raise TokenizerError(
            f"{name} puts a space before every text (add_prefix_space), so that it cannot be given back exactly. "
            "Set it to false, or choose another tokenizer."
        )
    vocabulary = (content.get("model") or {}).get("vocab")
    missing = [
        byte
        for written, byte in BYTE_OF_CHARACTER.items()
        if isinstance(vocabulary, dict) and written not in vocabulary
    ]
    if missing:
        raise TokenizerError(
            f"{name} has no token for {len(missing)} of the 256 bytes, the first 0x{min(missing):02x}, and would lose "
            "them. Train it again with the whole byte alphabet."
        )


def _parts(part: Any, key: str) -> Iterator[dict[str, Any]]:
    """A step of a tokenizer.json, or the steps of a Sequence."""
    if not isinstance(part, dict):
        return
    if part.get("type") == "Sequence":
        for inner in part.get(key) or ():
            yield from _parts(inner, key)
    else:
        yield {"type": "unknown", **part}


def _token_bytes(vocabulary: Mapping[str, int], added: Container[int], name: str) -> list[bytes]:
    if len(set(vocabulary.values())) < len(vocabulary):
        raise TokenizerError(f"{name} gives one id to several tokens. Export it again.")
    tokens = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for written, token_id in vocabulary.items():
        byte_level = token_id not in added and all(character in BYTE_OF_CHARACTER for character in written)
        tokens[token_id] = from_characters(written) if byte_level else written.encode("utf-8")
    return tokens


def _end_id(core: Any, name: str, end_name: str | None) -> int:
    for candidate in (*_END_NAMES, *([end_name] if end_name else [])):
        token_id = core.token_to_id(candidate)
        if token_id is not None:
            return token_id
    raise TokenizerError(
        f"{name} has no token that ends a document (looked for {', '.join(_END_NAMES)}). Add {ENDOFTEXT} to it."
    )
