"""Tokenizers by name, from a file, or trained on text."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tokenloom.data.tokenizers.added_tokens import extend_tokenizer, text_between_tokens
from tokenloom.data.tokenizers.bpe import (
    BYTE_TO_CHARACTER,
    GPT2_BYTE_ORDER,
    GPT2_MERGES_SHA256,
    BPETokenizer,
    Merge,
    byte_tokenizer,
    gpt2_tokenizer,
    parse_merge,
    train_bpe,
)
from tokenloom.data.tokenizers.characters import CharacterTokenizer
from tokenloom.data.tokenizers.huggingface import HuggingFaceTokenizer
from tokenloom.data.tokenizers.huggingface_files import (
    TOKENIZER_JSON,
    SavedTokenizer,
    TokenizerFiles,
    has_tokenizer_files,
    read_tokenizer_files,
)
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT, Tokenizer
from tokenloom.data.tokenizers.tokenizer_json import AddedTokenJson, TokenizerJson, special_token
from tokenloom.errors import TokenizerError
from tokenloom.home import expand_home

_BUILT_IN: dict[str, Callable[[], Tokenizer]] = {"gpt2": gpt2_tokenizer, "byte": byte_tokenizer}
_SUPPORTED = "gpt2, byte, char, bpe:N (such as bpe:2048), or the path of a tokenizer.json"
_GPT2_VOCAB_SIZE = 50_257
_CHARACTER_TOKENIZER_TAIL = 257  # the bytes and <|endoftext|>, which follow the characters in the vocabulary


def make_tokenizer(spec: str, texts: Iterable[str] = (), added: Sequence[str] = ()) -> Tokenizer:
    """The tokenizer that `spec` describes, followed by the tokens in `added`.

    "char" and "bpe:N" are trained on `texts`, which other tokenizers ignore. Raises `TokenizerError` for an invalid
    spec.
    """
    if spec == "char":
        base: Tokenizer = CharacterTokenizer.train(text_between_tokens(texts, added))
    elif spec.partition(":")[0] == "bpe":
        base = train_bpe(bpe_vocab_size(spec), text_between_tokens(texts, added))
    else:
        base = load_tokenizer(spec)
    return extend_tokenizer(base, added)


def needs_training(spec: str) -> bool:
    """Whether the tokenizer is trained on the text; raises `TokenizerError` for a bpe:N without a number."""
    if spec.partition(":")[0] == "bpe":
        return bool(bpe_vocab_size(spec))
    return spec == "char"


def load_tokenizer(reference: str | Path) -> Tokenizer:
    """A tokenizer that needs no training: "gpt2", "byte", a tokenizer.json, or a folder with tokenizer files.

    The files can be those of `Tokenizer.save` or from Hugging Face, whose added tokens are matched as `AutoTokenizer`
    does. Raises `TokenizerError` if they do not exist, are corrupt, or are not lossless.
    """
    if isinstance(reference, str) and reference in _BUILT_IN:  # a `Path` may have the same name
        return _BUILT_IN[reference]()
    path = expand_home(reference)
    if not reference or not (path.is_file() or has_tokenizer_files(path)):
        raise TokenizerError(_not_found_message(str(reference), path))
    try:
        files = read_tokenizer_files(path)
        return _load_saved(files, files.saved) if files.saved is not None else tokenizer_of_files(files)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        file = path / TOKENIZER_JSON if path.is_dir() else path
        raise TokenizerError(f"{file} is not a valid tokenizer.json ({error!r}). Export it again.") from None


def tokenizer_of_files(files: TokenizerFiles) -> Tokenizer:
    """The tokenizer of another project, with the built-in implementation if it is GPT-2's."""
    added = [token for token in files.content.get("added_tokens") or () if token["content"] != ENDOFTEXT]
    has_gpt2_roles = {files.eos_token, files.bos_token} <= {None, ENDOFTEXT}
    if _is_gpt2(files.content) and has_gpt2_roles and _are_appended(added):
        return extend_tokenizer(gpt2_tokenizer(), [token["content"] for token in added])
    return HuggingFaceTokenizer(files.content, files.name, files.eos_token, files.bos_token)


def _load_saved(files: TokenizerFiles, saved: SavedTokenizer) -> Tokenizer:
    """A tokenizer of the kind that was saved, checked by its fingerprint."""
    content: TokenizerJson = files.content
    added = saved.get("added") or ()
    if added:
        content = {**content, "added_tokens": (content.get("added_tokens") or [])[: -len(added)]}
    kind = str(saved.get("kind"))
    if kind in _BUILT_IN:
        base = _BUILT_IN[kind]()
    elif kind == "char":
        vocab = content["model"]["vocab"]
        base = CharacterTokenizer(sorted(vocab, key=vocab.__getitem__)[:-_CHARACTER_TOKENIZER_TAIL])
    elif kind == "bpe":
        base = BPETokenizer("bpe", merges=_merges(content))
    else:
        base = HuggingFaceTokenizer(content, files.name, files.eos_token, files.bos_token)
    tokenizer = extend_tokenizer(base, added)
    if tokenizer.fingerprint != saved.get("fingerprint"):
        raise TokenizerError(
            f"{files.name} was modified after it was saved: its fingerprint differs. "
            "Restore it, or prepare the data again."
        )
    return tokenizer


def _are_appended(added: Sequence[AddedTokenJson]) -> bool:
    """Whether tokens follow GPT-2's vocabulary as `ExtendedTokenizer` adds them: special, without any options."""
    return all(
        token == {**special_token(_GPT2_VOCAB_SIZE + i, token["content"]), "normalized": added[0]["normalized"]}
        for i, token in enumerate(added)
    )


def _is_gpt2(content: TokenizerJson) -> bool:
    """Whether a tokenizer.json is GPT-2's, so that it gets the same fingerprint and the faster implementation."""
    model, pre_tokenizer = content.get("model") or {}, content.get("pre_tokenizer") or {}
    if (
        content.get("normalizer")
        or pre_tokenizer.get("type") != "ByteLevel"
        or pre_tokenizer.get("add_prefix_space")
        or not pre_tokenizer.get("use_regex", True)
    ):
        return False
    vocab: Mapping[str, int] = model.get("vocab") or {}
    if len(vocab) != _GPT2_VOCAB_SIZE:
        return False
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or ()]
    merge_list = "\n".join(["#version: 0.2", *lines, ""])
    return hashlib.sha256(merge_list.encode("utf-8")).hexdigest() == GPT2_MERGES_SHA256 and all(
        vocab.get(token) == i for i, token in enumerate(_gpt2_vocabulary(lines))
    )


def _gpt2_vocabulary(merges: Iterable[str]) -> list[str]:
    """The vocabulary in the byte-level alphabet, in the order of the ids."""
    return [*(BYTE_TO_CHARACTER[byte] for byte in GPT2_BYTE_ORDER), *(m.replace(" ", "") for m in merges), ENDOFTEXT]


def _merges(content: TokenizerJson) -> list[Merge]:
    merges = content["model"]["merges"]
    return [parse_merge(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]


def bpe_vocab_size(spec: str) -> int:
    """The number of tokens in a bpe:N; raises `TokenizerError` if there is none."""
    size = spec.partition(":")[2]
    if not size.isdecimal():
        raise TokenizerError(f'tokenizer "{spec}" needs a number of tokens. Write it as bpe:2048.')
    return int(size)


def _not_found_message(reference: str, path: Path) -> str:
    if reference and path.is_dir():
        return f"folder {path} has no tokenizer.json. Pass a folder that has one, or: {_SUPPORTED}."
    if reference == "char" or reference.startswith("bpe"):
        return (
            f'tokenizer "{reference}" is trained on text and cannot be loaded by name. Pass the folder of a saved one.'
        )
    matches = difflib.get_close_matches(reference, ["gpt2", "byte", "char", "bpe:2048"], n=1, cutoff=0.5)
    hint = f"Did you mean {matches[0]}? Supported: " if matches else "Supported: "
    return f'there is no tokenizer "{reference}". {hint}{_SUPPORTED}.'
