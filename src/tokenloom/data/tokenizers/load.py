"""A tokenizer from a name, a file, or the text it shall learn from."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenloom.data.tokenizers.added_tokens import between_tokens, with_added
from tokenloom.data.tokenizers.bpe import (
    BYTE_OF_CHARACTER,
    GPT2_ALPHABET,
    GPT2_MERGES_SHA256,
    BytePairs,
    byte_tokenizer,
    gpt2_tokenizer,
    learn_byte_pairs,
    merge_of,
)
from tokenloom.data.tokenizers.characters import Characters, learn_characters
from tokenloom.data.tokenizers.huggingface import HuggingFaceTokenizer
from tokenloom.data.tokenizers.tokenizer import Tokenizer
from tokenloom.errors import TokenizerError

_KNOWN = "gpt2, byte, char, bpe:N (such as bpe:2048), or the path of a tokenizer.json"
_SIZE_OF_TAIL = 257  # the bytes and <|endoftext|>, which end a vocabulary of characters
_FIXED: dict[str, Callable[[], Tokenizer]] = {"gpt2": gpt2_tokenizer, "byte": byte_tokenizer}


def make_tokenizer(spec: str, texts: Iterable[str] = (), added: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer that `spec` describes; "char" and "bpe:N" learn from `texts`, the others leave them unread.

    Tokens of `added` come after its own. Raises `TokenizerError` for a spec that names none.
    """
    if spec == "char":
        base: Tokenizer = learn_characters(between_tokens(texts, added))
    elif spec.partition(":")[0] == "bpe":
        base = learn_byte_pairs(_size_of(spec), between_tokens(texts, added))
    else:
        base = load_tokenizer(spec)
    return with_added(base, added)


def needs_training(spec: str) -> bool:
    """Whether the tokenizer depends on the text; raises `TokenizerError` for a bpe:N without a number."""
    if spec.partition(":")[0] == "bpe":
        return bool(_size_of(spec))
    return spec == "char"


def load_tokenizer(reference: str | Path) -> Tokenizer:
    """A tokenizer that needs no text: "gpt2", "byte", a tokenizer.json, or a folder of one, ours or Hugging Face's.

    Raises `TokenizerError` where there is none, it is damaged, or it cannot give text back exactly.
    """
    if str(reference) in _FIXED:
        return _FIXED[str(reference)]()
    path = Path(reference)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file() and _has_gpt2_merges(path):
        return gpt2_tokenizer()
    if not reference or not file.is_file():
        raise TokenizerError(_explain_missing(str(reference), path))
    content = _read_json(file)
    config_file = file.with_name("tokenizer_config.json")
    config = _read_json(config_file) if config_file.is_file() else {}
    ours = config.get("tokenloom")
    try:
        if not isinstance(ours, dict):
            return _foreign(content, str(file), config)
        added = ours.get("added") or ()
        if added:
            content = {**content, "added_tokens": content["added_tokens"][: -len(added)]}
        tokenizer = with_added(_ours(str(ours.get("kind")), content, str(file), config), added)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise TokenizerError(f"{file} is not a tokenizer.json ({error!r}). Export it again.") from None
    if tokenizer.fingerprint != ours.get("fingerprint"):
        raise TokenizerError(
            f"{file} is not what was saved: its fingerprint differs. Restore it, or prepare the data again."
        )
    return tokenizer


def _ours(kind: str, content: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> Tokenizer:
    """The same kind that was saved."""
    if kind in _FIXED:
        return _FIXED[kind]()
    if kind == "char":
        written = sorted(content["model"]["vocab"], key=content["model"]["vocab"].__getitem__)
        return Characters(written[:-_SIZE_OF_TAIL])
    if kind == "bpe":
        return BytePairs("bpe", merges=_merges(content))
    return HuggingFaceTokenizer(content, name, _end_name(config))


def _foreign(content: Mapping[str, Any], name: str, config: Mapping[str, Any]) -> Tokenizer:
    return gpt2_tokenizer() if _is_gpt2(content) else HuggingFaceTokenizer(content, name, _end_name(config))


def _end_name(config: Mapping[str, Any]) -> str | None:
    end = config.get("eos_token")
    return end.get("content") if isinstance(end, dict) else end


def _is_gpt2(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is GPT-2's own, whose fingerprint and faster core it then shares."""
    model, before = content.get("model") or {}, content.get("pre_tokenizer") or {}
    if content.get("normalizer") or before.get("type") != "ByteLevel" or before.get("add_prefix_space"):
        return False
    if len(model.get("vocab") or ()) != 50257 or not before.get("use_regex", True):
        return False
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or ()]
    merge_list = "\n".join(["#version: 0.2", *lines, ""])
    return hashlib.sha256(merge_list.encode("utf-8")).hexdigest() == GPT2_MERGES_SHA256 and all(
        model["vocab"].get(written) == i for i, written in enumerate(_gpt2_written(lines))
    )


def _has_gpt2_merges(folder: Path) -> bool:
    """Whether a folder from before tokenizer.json, with vocab.json and merges.txt, holds GPT-2's own list."""
    file = folder / "merges.txt"
    return (
        file.is_file() and hashlib.sha256(file.read_bytes().replace(b"\r\n", b"\n")).hexdigest() == GPT2_MERGES_SHA256
    )


def _gpt2_written(lines: Iterable[str]) -> list[str]:
    character = {byte: written for written, byte in BYTE_OF_CHARACTER.items()}
    return [character[byte] for byte in GPT2_ALPHABET] + [line.replace(" ", "") for line in lines] + ["<|endoftext|>"]


def _merges(content: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    return [merge_of(merge.split(" ") if isinstance(merge, str) else merge) for merge in content["model"]["merges"]]


def _size_of(spec: str) -> int:
    size = spec.partition(":")[2]
    if not size.isdecimal():
        raise TokenizerError(f'tokenizer "{spec}" needs a number of tokens. Write it as bpe:2048.')
    return int(size)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TokenizerError(f"{file} cannot be read as JSON: {error}. Export it again.") from None
    if not isinstance(content, dict):
        raise TokenizerError(
            f"{file} holds {type(content).__name__}, not the object of a tokenizer.json. Export it again."
        )
    return content


def _explain_missing(reference: str, path: Path) -> str:
    if reference and path.is_dir():
        return f"folder {path} has no tokenizer.json. Name a folder that has one, or: {_KNOWN}."
    if reference == "char" or reference.startswith("bpe"):
        return (
            f'tokenizer "{reference}" learns from text and cannot be loaded by name. Name the folder it was saved in.'
        )
    near = difflib.get_close_matches(reference, ["gpt2", "byte", "char", "bpe:2048"], n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? All: " if near else "Choose "
    return f'there is no tokenizer "{reference}". {hint}{_KNOWN}.'
