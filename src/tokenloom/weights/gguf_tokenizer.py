"""The tokenizer in a GGUF file: byte-pair encoding with GPT-2's pattern, and control and user-defined tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tokenloom.data.tokenizers import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.added_tokens import extend_tokenizer
from tokenloom.data.tokenizers.bpe import BPETokenizer, gpt2_tokenizer, parse_merge, to_byte_level
from tokenloom.data.tokenizers.huggingface import HuggingFaceTokenizer
from tokenloom.data.tokenizers.tokenizer_json import AddedTokenJson, ModelJson, TokenizerJson, added_token
from tokenloom.errors import WeightsError

_MODEL = "gpt2"
# Members of the gguf package's `TokenType`.
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is split before merges are applied, by llama.cpp's names, each as a pre-tokenizer of tokenizer.json.
_PRETOKENIZERS: Mapping[str, Mapping[str, object]] = {
    "gpt-2": _BYTE_LEVEL,
    "qwen2": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _QWEN2_PATTERN}, "behavior": "Isolated", "invert": False},
            {**_BYTE_LEVEL, "use_regex": False},
        ],
    },
}


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raise `WeightsError` for a tokenizer that llama.cpp does not support."""
    content = tokenizer.to_json()
    if (
        not content["model"].get("merges")
        or _pretokenizer_name(content) is None
        or any(token["single_word"] for token in content.get("added_tokens") or ())
    ):
        raise WeightsError(
            f"the tokenizer of this model ({tokenizer.kind}) cannot be exported as gguf: llama.cpp supports byte-pair "
            "encodings with merges (gpt2, bpe:N). Use --format hf or pth."
        )


def add_tokenizer(writer: Any, tokenizer: Tokenizer, vocabulary: int) -> None:
    """Write a tokenizer that passes `check_tokenizer`; ids up to `vocabulary` without a token are marked as unused."""
    content = tokenizer.to_json()
    tokens = {token_id: (text, _NORMAL) for text, token_id in content["model"]["vocab"].items()}
    for token in content.get("added_tokens") or ():
        tokens[token["id"]] = (token["content"], _CONTROL if token["special"] else _USER_DEFINED)
    tokens[tokenizer.eot_id] = (tokenizer.eot_text, _CONTROL)
    listed = [tokens.get(i, (f"[PAD{i}]", _UNUSED)) for i in range(vocabulary)]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in content["model"]["merges"]]
    writer.add_tokenizer_model(_MODEL)
    writer.add_tokenizer_pre(_pretokenizer_name(content))
    writer.add_token_list([text for text, _ in listed])
    writer.add_token_types([token_type for _, token_type in listed])
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(False)


def read_tokenizer(fields: Mapping[str, Any], path: Path) -> Tokenizer:
    """The tokenizer in the fields of a GGUF file; raises `WeightsError` for one of another kind."""
    kind, pretokenizer = str(fields.get("tokenizer.ggml.model")), str(fields.get("tokenizer.ggml.pre"))
    if kind != _MODEL or pretokenizer not in _PRETOKENIZERS:
        raise WeightsError(
            f"{path} has the tokenizer {kind} ({pretokenizer}). "
            f"Supported in GGUF: {_MODEL} ({', '.join(_PRETOKENIZERS)})."
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    merges: list[str] = fields["tokenizer.ggml.merges"]
    used = [(i, text, token_type) for i, (text, token_type) in enumerate(zip(tokens, types, strict=True))]
    used = [(i, text, token_type) for i, text, token_type in used if token_type != _UNUSED]
    roles = {name: _token(fields, name, tokens) for name in ("bos", "eos")}
    is_gpt2 = _PRETOKENIZERS[pretokenizer] is _BYTE_LEVEL
    if is_gpt2 and {*roles.values()} <= {None, ENDOFTEXT} and (native := _native_tokenizer(used, merges)) is not None:
        return native
    model: ModelJson = {"type": "BPE", "vocab": {text: i for i, text, _ in used}, "merges": [*merges]}
    content: TokenizerJson = {
        "version": "1.0",
        "added_tokens": [_added(i, text, token_type) for i, text, token_type in used if token_type != _NORMAL],
        "normalizer": None,
        "pre_tokenizer": {**_PRETOKENIZERS[pretokenizer]},
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": model,
    }
    return HuggingFaceTokenizer(content, str(path), roles["eos"], roles["bos"])


def _pretokenizer_name(content: TokenizerJson) -> str | None:
    """llama.cpp's name of a tokenizer's splitting rule; None if it has none."""
    found = [*_splitting_rules(content.get("pre_tokenizer"))]
    return next((name for name, rules in _PRETOKENIZERS.items() if [*_splitting_rules(rules)] == found), None)


def _splitting_rules(pre_tokenizer: object) -> Iterator[object]:
    """What decides where a pre-tokenizer splits: patterns, or GPT-2's own with ByteLevel's use_regex."""
    if not isinstance(pre_tokenizer, Mapping):
        return
    settings = cast("Mapping[str, object]", pre_tokenizer)
    if settings.get("type") == "Sequence":
        for inner in cast("Sequence[object]", settings.get("pretokenizers") or ()):
            yield from _splitting_rules(inner)
    elif settings.get("type") == "ByteLevel":
        yield from (["gpt-2"] if settings.get("use_regex", True) else [])
    else:
        yield {name: settings.get(name) for name in ("type", "pattern", "behavior", "invert")}


def _native_tokenizer(used: Sequence[tuple[int, str, int]], merges: Sequence[str]) -> Tokenizer | None:
    """The built-in implementation, if the ids are those of its merges, <|endoftext|>, and added control tokens."""
    parsed = [parse_merge(merge.split(" ")) for merge in merges]
    base = gpt2_tokenizer() if parsed == gpt2_tokenizer().merges else BPETokenizer("bpe", merges=parsed)
    expected = [*(to_byte_level(token) for token in base.token_bytes[: base.eot_id]), ENDOFTEXT]
    added = used[base.vocab_size :]
    if (
        [text for _, text, _ in used[: base.vocab_size]] != expected
        or any(token_type != _CONTROL for _, _, token_type in added)
        or [i for i, _, _ in used] != list(range(len(used)))
    ):
        return None
    return extend_tokenizer(base, [text for _, text, _ in added])


def _added(token_id: int, text: str, token_type: int) -> AddedTokenJson:
    return added_token(token_id, {"content": text, "special": token_type != _USER_DEFINED, "normalized": False})


def _token(fields: Mapping[str, Any], role: str, tokens: Sequence[str]) -> str | None:
    """The text of the token with a role; None if the file does not name one."""
    token_id = cast("int | None", fields.get(f"tokenizer.ggml.{role}_token_id"))
    return None if token_id is None else tokens[token_id]
