"""The files of a folder of token shards by name, and the content of its meta.json."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from tokenloom.errors import DataError
from tokenloom.storage import write_text
from tokenloom.strict_json import load_json

FORMAT = "tokenloom-shards"
VERSION = 1
SPLITS = ("train", "val")
TOKENIZER_FOLDER = "tokenizer"
FINISHED_FOLDER = "finished"  # two files per finished shard, until all shards are finished

_META_FILE = "meta.json"
_MAX_UINT16_VOCABULARY = 65_536


@dataclass(frozen=True)
class ShardRecord:
    """The counts of one shard, and the sha256 of its two files."""

    tokens: int
    documents: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str


@dataclass(frozen=True)
class SplitMeta:
    """The counts of one split, and its shards in order."""

    tokens: int
    documents: int
    bytes: int
    shards: list[ShardRecord]


@dataclass(frozen=True)
class TokenizerMeta:
    """The tokenizer of the tokens."""

    kind: str
    vocab_size: int
    eot_id: int
    fingerprint: str


@dataclass(frozen=True)
class SourceMeta:
    """A source of the text: its name, size in bytes, sha256 and `Source.identity`."""

    name: str
    bytes: int | None
    sha256: str | None
    identity: str


@dataclass(frozen=True)
class ShardsMeta:
    """The content of meta.json."""

    format: str
    version: int
    fingerprint: str
    """The sha256 of the tokenizer's fingerprint and of all shard records."""
    dtype: Literal["uint16", "uint32"]
    tokenizer: TokenizerMeta
    splits: dict[str, SplitMeta]
    request: Mapping[str, object]
    """The options that the shards were prepared with, by name."""
    sources: list[SourceMeta]
    replaced: int = 0
    """Invalid UTF-8 sequences and lone surrogates that were replaced with U+FFFD."""


def token_dtype(vocab_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The type of token ids on disk: little-endian uint16, or uint32 for a vocabulary of more than 65,536 tokens."""
    return np.dtype("<u2") if vocab_size <= _MAX_UINT16_VOCABULARY else np.dtype("<u4")


def shard_files(folder: Path, index: int) -> tuple[Path, Path]:
    """The files of the tokens and of the document ends of a shard in the folder of its split."""
    return folder / f"tokens-{index:05d}.bin", folder / f"documents-{index:05d}.idx"


def finished_files(folder: Path, split: str, index: int) -> tuple[Path, Path]:
    """The files that a shard has until all shards are finished: its record, and its document ends.

    These ends are counted from the start of the shard. They are not overwritten by the final ones, so that a call that
    is stopped in between can be repeated.
    """
    name = f"{split}-{index:05d}"
    return folder / FINISHED_FOLDER / f"{name}.json", folder / FINISHED_FOLDER / f"{name}.idx"


def is_shards_folder(path: Path) -> bool:
    """Whether a folder contains token shards, of any version; raises `DataError` for an unreadable meta.json."""
    return _read_json(path) is not None


def read_meta(path: Path) -> ShardsMeta:
    """The meta.json of a folder of token shards; raises `DataError` if it is missing, corrupt or of another version."""
    content = _read_json(path)
    if content is None:
        raise DataError(
            f"{path} is not a folder of token shards: it has no {_META_FILE} of that format. Run: tokenloom prepare"
        )
    if content.get("version") != VERSION:
        raise DataError(
            f"token shards {path} have format version {content.get('version')!r}; this version of tokenloom reads "
            f"version {VERSION}. Prepare the data again, or use the version that wrote them."
        )
    try:
        meta = TypeAdapter(ShardsMeta).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"]))
        raise corrupt_shards(path, f"{_META_FILE}: {location}: {first['msg']}") from None
    missing = [split for split in SPLITS if split not in meta.splits]
    if missing:
        raise corrupt_shards(path, f"{_META_FILE}: splits.{missing[0]}: Field required")
    return meta


def write_meta(folder: Path, meta: ShardsMeta) -> None:
    write_text(folder / _META_FILE, json.dumps(asdict(meta), indent=1, ensure_ascii=False) + "\n")


def remove_meta(folder: Path) -> None:
    (folder / _META_FILE).unlink(missing_ok=True)


def corrupt_shards(path: Path, reason: str) -> DataError:
    """The error for token shards whose files are not what was written."""
    return DataError(f"token shards {path} are corrupt: {reason}. Delete the folder and prepare the data again.")


def cannot_write_shards(path: Path, error: OSError, alternative: str = "use another folder") -> DataError:
    """The error for an output folder that cannot be written, with advice that fits the reason."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "Free disk space" if full else "Check the path and its permissions"
    return DataError(f"cannot write token shards to {path}: {error.strerror or error}. {advice}, or {alternative}.")


def _read_json(path: Path) -> Mapping[str, object] | None:
    """The object in meta.json; None if `path` is not a folder of token shards."""
    file = path / _META_FILE
    if not file.is_file():
        return None
    try:
        content: object = load_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise corrupt_shards(path, f"{_META_FILE} cannot be read ({error})") from None
    if not isinstance(content, dict):
        return None
    meta = cast("Mapping[str, object]", content)
    return meta if meta.get("format") == FORMAT else None
