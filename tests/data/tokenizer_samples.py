"""Tokenizers of every kind, and texts that are difficult to encode."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from tokenloom.data.tokenizers import ENDOFTEXT, Tokenizer, load_tokenizer, make_tokenizer

TRAINING_TEXT = "It's a fine day, isn't it? Schöne Grüße aus Köln!\r\n\tdef f(x):\n\t\treturn x  # 1,234\n" * 20 + str(
    json.__doc__
)


KINDS = ["gpt2", "byte", "char", "bpe:400", "json"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


# Texts that tokenizers treat differently: white space, contractions, digits, scripts, control characters.
TRICKY = st.lists(
    st.sampled_from([
        " ", "  ", "\n", "\r\n", "\t", "\x00", "\u3000", "\x85", "'s", "'ll", "’", "1", "23", "a", "The", "é",
        "e\u0301", "中", "。", ".", ",", ")", "👩\u200d🚀", "!?", "<|", ENDOFTEXT, "endoftext|>", "²",
        "İ", "ſ", "\ufeff", "\ufffd",
    ]),
    max_size=20,
).map("".join)  # fmt: skip


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "json":
        with tempfile.TemporaryDirectory() as folder:
            return foreign_tokenizer(Path(folder))
    return make_tokenizer(kind, [TRAINING_TEXT])


def bytes_only() -> dict:
    model = make_tokenizer("byte").to_json()["model"]
    return {**model, "vocab": {written: i for written, i in model["vocab"].items() if i < 256}}


def foreign_tokenizer(folder: Path, **parts: object) -> Tokenizer:
    """A byte-level tokenizer.json from elsewhere, with different ids, special tokens and end-of-text token."""
    content = make_tokenizer("bpe:300", [TRAINING_TEXT]).to_json()
    vocabulary = [written for written in content["model"]["vocab"] if written != ENDOFTEXT]
    content["model"]["vocab"] = {written: i for i, written in enumerate(["<s>", "</s>", *reversed(vocabulary)])}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": 0, "content": "<s>", **plain}, {"id": 1, "content": "</s>", **plain}]
    content.update(parts)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return load_tokenizer(file)
