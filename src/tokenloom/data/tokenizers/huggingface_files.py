"""The tokenizer files of a Hugging Face folder, merged into the content of one tokenizer.json.

Added tokens may be listed in tokenizer.json, tokenizer_config.json, added_tokens.json and special_tokens_map.json, and
the vocabulary may be in vocab.json and merges.txt. The ids are those of `AutoTokenizer`; what would give other ids is
refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from tokenloom.data.tokenizers.bpe import GPT2_MERGES_SHA256, gpt2_tokenizer
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT
from tokenloom.data.tokenizers.tokenizer_json import AddedTokenJson, TokenizerJson, added_token
from tokenloom.errors import TokenizerError
from tokenloom.strict_json import load_json

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
ADDED_TOKENS = "added_tokens.json"
SPECIAL_TOKENS = "special_tokens_map.json"
TOKENIZER_FILES = (TOKENIZER_JSON, TOKENIZER_CONFIG, VOCABULARY, MERGES, ADDED_TOKENS, SPECIAL_TOKENS)

# Keys of tokenizer_config.json and special_tokens_map.json, in the order in which `AutoTokenizer` adds their tokens.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ROLE_LISTS = ("additional_special_tokens", "extra_special_tokens")
# Settings that change the ids.
_UNSUPPORTED = ("add_prefix_space", "split_special_tokens")


class SavedTokenizer(TypedDict, total=False):
    """What `Tokenizer.save` writes to tokenizer_config.json for `load_tokenizer`."""

    kind: str
    fingerprint: str
    added: Sequence[str]


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer.json with all added tokens, and what other files say about it."""

    content: TokenizerJson
    name: str
    """The file that has the vocabulary, for error messages."""
    eos_token: str | None = None
    bos_token: str | None = None
    saved: SavedTokenizer | None = None


def has_tokenizer_files(folder: Path) -> bool:
    """Whether a folder has any file of a tokenizer."""
    return any((folder / name).exists() for name in TOKENIZER_FILES)


def read_tokenizer_files(path: Path) -> TokenizerFiles:
    """The tokenizer in a folder, or in a tokenizer.json with the other files beside it.

    Raises `TokenizerError` for files that cannot be read, contradict each other or are not supported, and `KeyError`,
    `TypeError` and similar errors for JSON of an unexpected structure.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / TOKENIZER_JSON if path.is_dir() else path
    config = _read_optional_json(folder / TOKENIZER_CONFIG)
    if isinstance(config.get("tokenloom"), dict):
        content, saved = cast("TokenizerJson", read_json(file)), cast("SavedTokenizer", config["tokenloom"])
        if not _was_extended(content, saved):
            roles = [_text_of(config.get(role)) for role in ("eos_token", "bos_token")]
            return TokenizerFiles(content, str(file), *roles, saved=saved)
    for setting in _UNSUPPORTED:
        if config.get(setting):
            raise TokenizerError(
                f"{folder / TOKENIZER_CONFIG} sets {setting}, which is not supported. Set it to false, or choose "
                "another tokenizer."
            )
    if file.is_file():
        content = cast("TokenizerJson", read_json(file))
    else:
        content, file = _read_merges(folder), folder / MERGES
    roles = {**_default_roles(content), **_roles(folder, config)}
    declared = _declared_tokens(folder, config, roles)
    added = _merge(content.get("added_tokens") or [], declared, file)
    added += _undeclared(roles, content, added)
    merged: TokenizerJson = {**content, "added_tokens": sorted(added, key=lambda token: token["id"])}
    return TokenizerFiles(merged, str(file), _text_of(roles.get("eos_token")), _text_of(roles.get("bos_token")))


def read_json(file: Path) -> dict[str, object]:
    """The object in a JSON file; raises `TokenizerError` for anything else."""
    try:
        content = load_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} cannot be read as JSON: {error}. Export it again.") from None
    if not isinstance(content, dict):
        raise TokenizerError(f"{file} contains a JSON {type(content).__name__}, not an object. Export it again.")
    return cast("dict[str, object]", content)


def _read_optional_json(file: Path) -> dict[str, object]:
    return read_json(file) if file.is_file() else {}


def _read_merges(folder: Path) -> TokenizerJson:
    """The byte-level BPE of vocab.json and merges.txt, as transformers' GPT2Tokenizer builds it."""
    file = folder / MERGES
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{file} cannot be read: {error}. Export it again.") from None
    if not (folder / VOCABULARY).is_file():  # the ids of GPT-2 follow from its merges
        if hashlib.sha256(text.encode("utf-8")).hexdigest() != GPT2_MERGES_SHA256:
            raise TokenizerError(f"folder {folder} has no {TOKENIZER_JSON}, and no {VOCABULARY} beside {MERGES}.")
        return gpt2_tokenizer().to_json()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#version")]
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": cast("dict[str, int]", read_json(folder / VOCABULARY)),
            "merges": [line.split(" ") for line in lines],
        },
    }


def _was_extended(content: TokenizerJson, saved: SavedTokenizer) -> bool:
    """Whether transformers has added tokens since `Tokenizer.save`: it keeps the settings that it does not know."""
    texts = {token["content"] for token in content.get("added_tokens") or ()}
    return saved.get("kind") != "json" and not texts <= {ENDOFTEXT, *(saved.get("added") or ())}


def _default_roles(content: TokenizerJson) -> Mapping[str, object]:
    """The tokens with a role that transformers' GPT2Tokenizer assumes, if the vocabulary has them."""
    is_known = ENDOFTEXT in content["model"]["vocab"]
    return dict.fromkeys(("bos_token", "eos_token", "unk_token"), ENDOFTEXT) if is_known else {}


def _roles(folder: Path, config: Mapping[str, object]) -> Mapping[str, object]:
    """The tokens with a role, such as eos_token, by that role."""
    # transformers reads special_tokens_map.json only for configurations of earlier versions.
    legacy = {} if "added_tokens_decoder" in config else _read_optional_json(folder / SPECIAL_TOKENS)
    return {key: value for key, value in {**config, **legacy}.items() if value is not None}


def _declared_tokens(folder: Path, config: Mapping[str, object], roles: Mapping[str, object]) -> list[AddedTokenJson]:
    """The added tokens with an id in tokenizer_config.json, or in the added_tokens.json of earlier versions."""
    if "added_tokens_decoder" in config:
        decoder = cast("Mapping[str, Mapping[str, object]]", config["added_tokens_decoder"])
        return [added_token(int(token_id), token) for token_id, token in decoder.items()]
    special = {str(token["content"]) for token in _tokens_with_roles(roles)}
    tokens = cast("Mapping[str, int]", _read_optional_json(folder / ADDED_TOKENS))
    return [
        added_token(token_id, {"content": text, "special": text in special, "normalized": text not in special})
        for text, token_id in tokens.items()
    ]


def _merge(own: Sequence[AddedTokenJson], declared: Sequence[AddedTokenJson], file: Path) -> list[AddedTokenJson]:
    """The added tokens of tokenizer.json and those that other files declare; those of tokenizer.json have precedence.

    Raises `TokenizerError` where they differ in the ids that they give.
    """
    merged = {token["content"]: added_token(token["id"], token) for token in own}
    for token in declared:
        other = merged.setdefault(token["content"], token)
        if any(token[key] != other[key] for key in ("id", "lstrip", "rstrip", "single_word")):
            raise TokenizerError(
                f"{file} and the other tokenizer files beside it differ in the added token {token['content']!r}. "
                "Save the tokenizer again with transformers."
            )
    return list(merged.values())


def _undeclared(
    roles: Mapping[str, object], content: TokenizerJson, added: Sequence[AddedTokenJson]
) -> list[AddedTokenJson]:
    """Tokens that have a role but no id: in the vocabulary they keep theirs, others follow the last id."""
    if not isinstance(cast("object", content["model"]["vocab"]), dict):  # another kind of model, which is refused later
        return []
    vocab = content["model"]["vocab"]
    known = {token["content"] for token in added}
    next_id = 1 + max([*vocab.values(), *(token["id"] for token in added)])
    tokens: list[AddedTokenJson] = []
    for token in _tokens_with_roles(roles):
        text = str(token["content"])
        if text not in known:
            known.add(text)
            tokens.append(added_token(vocab.get(text, next_id), {**token, "special": True}))
            next_id += text not in vocab
    return tokens


def _tokens_with_roles(roles: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    tokens = [roles.get(role) for role in _ROLES]
    for name in _ROLE_LISTS:
        extra = roles.get(name) or ()
        tokens += (
            cast("Mapping[str, object]", extra).values() if isinstance(extra, Mapping) else cast("list[object]", extra)
        )
    for token in tokens:
        if token:
            yield cast("Mapping[str, object]", token) if isinstance(token, Mapping) else {"content": token}


def _text_of(token: object) -> str | None:
    if isinstance(token, Mapping):
        return str(cast("Mapping[str, object]", token)["content"])
    return str(token) if token else None
