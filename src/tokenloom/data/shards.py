"""Token shards: the ids of a corpus on disk, checked when opened, memory-mapped when read.

    OUT/meta.json                       counts, fingerprints, the sha256 of every file
    OUT/tokenizer/                      the tokenizer, as Hugging Face writes it
    OUT/train/tokens-00000.bin …        ids, little-endian uint16, or uint32 for more than 65,536 tokens
    OUT/train/documents-00000.idx …     where documents end, little-endian uint64, counted from the split's start
    OUT/val/…                           the same for validation

A document's end is the place after its last token, the <|endoftext|> that separates it from the next one included;
the last end is the number of tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.errors import DataError, TokenizerError

FORMAT = "tokenloom-shards"
VERSION = 1
SPLITS = ("train", "val")

_MAPPED_AT_ONCE = 64  # open files are a limited resource; a corpus may have thousands of shards
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class ShardRecord:
    """What meta.json says of one shard: its counts and the sha256 of its two files."""

    tokens: int
    documents: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str


class ShardWriter:
    """Writes one shard; ends of documents are counted from its own start until `finish_shards` knows the others."""

    def __init__(self, folder: Path, index: int, tokenizer: Tokenizer) -> None:
        self._tokens_path, self._documents_path = shard_files(folder, index)
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._byte_lengths = tokenizer.byte_lengths
        self._eot = np.array([tokenizer.eot_id])
        self._ends: list[int] = []
        self._n_tokens = self._n_bytes = 0
        self._digest = hashlib.sha256()
        # The name carries the process: one that outlived its parent must not write into a newer one's file.
        self._unfinished = self._tokens_path.with_suffix(f".{os.getpid()}.tmp")
        self._file = self._unfinished.open("wb")

    def append(self, ids: np.ndarray) -> None:
        data = ids.astype(self._dtype).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._n_tokens += len(ids)
        self._n_bytes += int(self._byte_lengths[ids].sum())

    def separate(self) -> None:
        """End the document before this place, which may have begun in an earlier shard, with <|endoftext|>."""
        self.append(self._eot)
        self._ends.append(self._n_tokens)

    def close(self) -> ShardRecord:
        """Put the shard where it belongs, on the disk for certain, and say what is in it."""
        ends = np.array(self._ends, dtype="<u8").tobytes()
        write_durably(self._documents_path, ends)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._unfinished, self._tokens_path)
        hexdigest = self._digest.hexdigest()
        return ShardRecord(self._n_tokens, len(self._ends), self._n_bytes, hexdigest, hashlib.sha256(ends).hexdigest())

    def abandon(self) -> None:
        self._file.close()
        self._unfinished.unlink(missing_ok=True)


class Split:
    """The tokens of one split as one long array, wherever the files divide it."""

    def __init__(self, folder: Path, records: Sequence[ShardRecord], dtype: np.dtype) -> None:
        self.n_tokens = sum(record.tokens for record in records)
        self.n_documents = sum(record.documents for record in records)
        self.n_bytes = sum(record.bytes for record in records)
        self._folder, self._records, self._dtype = folder, records, dtype
        self._starts = np.cumsum([0] + [record.tokens for record in records])
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.n_tokens

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens start … start + count - 1, (count,) uint16 or uint32, read-only where one file holds them all.

        Raises IndexError where the split has no such tokens.
        """
        if start < 0 or count < 0 or start + count > self.n_tokens:
            raise IndexError(f"tokens {start} to {start + count} of a split of {self.n_tokens}")
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while count > 0:
            offset = start - int(self._starts[shard])
            part = self._map(shard)[offset : offset + count]
            parts.append(part)
            start, count, shard = start + len(part), count - len(part), shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=self._dtype), *parts])

    def document_ends(self) -> np.ndarray:
        """Where each document ends, (n_documents,) uint64; the last end is n_tokens."""
        files = [shard_files(self._folder, index)[1] for index in range(len(self._records))]
        return np.concatenate([np.empty(0, dtype="<u8"), *(np.fromfile(file, dtype="<u8") for file in files)])

    def _map(self, shard: int) -> np.ndarray:
        if shard in self._mapped:
            self._mapped.move_to_end(shard)
        elif self._records[shard].tokens == 0:
            return np.empty(0, dtype=self._dtype)  # an empty file cannot be mapped
        else:
            if len(self._mapped) >= _MAPPED_AT_ONCE:
                self._mapped.popitem(last=False)
            self._mapped[shard] = np.memmap(shard_files(self._folder, shard)[0], dtype=self._dtype, mode="r")
        return self._mapped[shard]


@dataclass(frozen=True)
class Shards:
    """An opened folder of token shards: two splits and the tokenizer that made them."""

    path: Path
    meta: Mapping[str, Any]
    train: Split
    val: Split
    already_prepared: bool = False
    """Whether `prepare` found the work done."""

    @property
    def fingerprint(self) -> str:
        """A sha256 of the tokens, the documents' ends and the tokenizer: equal ones give equal batches."""
        return self.meta["fingerprint"]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        try:
            tokenizer = load_tokenizer(self.path / "tokenizer")
        except TokenizerError as error:
            raise DataError(f"token shards {self.path} have lost their tokenizer: {error}") from None
        if tokenizer.fingerprint != self.meta["tokenizer"]["fingerprint"]:
            raise _damaged(self.path, "the tokenizer in it is not the one that made its tokens")
        return tokenizer

    def verify(self) -> None:
        """Read every file again and compare its sha256; raises `DataError` for the first that differs."""
        for split, index, record in _records_of(self.meta):
            digests = record.tokens_sha256, record.documents_sha256
            for file, expected in zip(shard_files(self.path / split, index), digests, strict=True):
                if sha256_of(file) != expected:
                    raise _damaged(self.path, f"{split}/{file.name} is not what was written")
        assert self.tokenizer.vocab_size == self.meta["tokenizer"]["vocab_size"]


def open_shards(path: str | Path) -> Shards:
    """Open a folder that `prepare` wrote; every file is there and has its size, or `DataError` says which has not."""
    path = Path(path)
    meta = read_meta(path)
    if meta is None:
        raise DataError(
            f"{path} is not a folder of token shards: it has no meta.json of that kind. Run: tokenloom prepare"
        )
    if meta.get("version") != VERSION:
        raise DataError(
            f"token shards {path} are of version {meta.get('version')!r}, this is for {VERSION}. "
            "Prepare the data again, or use the tokenloom that made them."
        )
    try:
        dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[meta["dtype"]])
        splits = {split: [ShardRecord(**record) for record in meta["splits"][split]["shards"]] for split in SPLITS}
        described = [meta["fingerprint"], meta["tokenizer"]["fingerprint"], meta["request"], meta["sources"]]
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"meta.json lacks or misstates {error}") from None
    assert described
    for split, records in splits.items():
        for index, record in enumerate(records):
            sizes = record.tokens * dtype.itemsize, record.documents * 8
            for file, size in zip(shard_files(path / split, index), sizes, strict=True):
                _check_size(path, file, size)
    train, val = (Split(path / split, splits[split], dtype) for split in SPLITS)
    return Shards(path, meta, train, val)


def read_meta(path: Path) -> dict[str, Any] | None:
    """The meta.json of a folder of token shards, whatever its version; None where `path` is something else."""
    file = path / "meta.json"
    if not file.is_file():
        return None
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _damaged(path, f"meta.json cannot be read ({error})") from None
    return meta if isinstance(meta, dict) and meta.get("format") == FORMAT else None


def finish_shards(
    folder: Path,
    tokenizer: Tokenizer,
    records: Mapping[str, Sequence[ShardRecord]],
    description: Mapping[str, Any],
) -> None:
    """Complete a folder whose shards are written: documents' ends counted from the split's start, then meta.json.

    `description` goes into meta.json as it is: the "request", the "sources".
    """
    splits = {split: _finish_split(folder / split, records.get(split, ())) for split in SPLITS}
    tokenizer_meta = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "eot_id": tokenizer.eot_id,
        "fingerprint": tokenizer.fingerprint,
    }
    content = [tokenizer.fingerprint, *(record for split in SPLITS for record in splits[split]["shards"])]
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "tokenizer": tokenizer_meta,
        "splits": splits,
        **description,
    }
    if not (folder / "tokenizer").is_dir():
        tokenizer.save(folder / "tokenizer")
    write_durably(folder / "meta.json", (json.dumps(meta, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


def write_shards(
    path: str | Path,
    tokenizer: Tokenizer,
    *,
    train: Iterable[np.ndarray],
    val: Iterable[np.ndarray] = (),
    shard_tokens: int | None = None,
) -> Shards:
    """Shards of token arrays, one a document, with <|endoftext|> between them; a shard is left at `shard_tokens`."""
    path, records = Path(path), {}
    for split, documents in {"train": train, "val": val}.items():
        (path / split).mkdir(parents=True)
        records[split] = _write_split(path / split, tokenizer, documents, shard_tokens)
    finish_shards(path, tokenizer, records, {"request": {}, "sources": []})
    return open_shards(path)


def shard_files(folder: Path, index: int) -> tuple[Path, Path]:
    return folder / f"tokens-{index:05d}.bin", folder / f"documents-{index:05d}.idx"


def token_dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2") if vocab_size <= 65_536 else np.dtype("<u4")


def write_durably(file: Path, data: bytes) -> None:
    """Write beside the file, onto the disk for certain, and then put it in place."""
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with unfinished.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_split(
    folder: Path, tokenizer: Tokenizer, documents: Iterable[np.ndarray], shard_tokens: int | None
) -> list[ShardRecord]:
    records: list[ShardRecord] = []
    writer = ShardWriter(folder, 0, tokenizer)
    written = 0
    for number, ids in enumerate(documents):
        if number:
            writer.separate()
        ids = np.asarray(ids)
        while shard_tokens is not None and written + len(ids) > shard_tokens:
            head, ids = np.split(ids, [shard_tokens - written])
            writer.append(head)
            records.append(writer.close())
            writer, written = ShardWriter(folder, len(records), tokenizer), 0
        writer.append(ids)
        written += len(ids)
    return [*records, writer.close()]


def _finish_split(folder: Path, records: Sequence[ShardRecord]) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    finished, start = [], 0
    for index, record in enumerate(records):
        file = shard_files(folder, index)[1]
        ends = np.fromfile(file, dtype="<u8") + np.uint64(start)
        start += record.tokens
        if index == len(records) - 1 and start > 0:
            ends = np.append(ends, np.uint64(start))  # the last document has no <|endoftext|> behind it
        data = ends.astype("<u8").tobytes()
        write_durably(file, data)
        digest = hashlib.sha256(data).hexdigest()
        finished.append(ShardRecord(record.tokens, len(ends), record.bytes, record.tokens_sha256, digest))
    return {
        "tokens": start,
        "documents": sum(record.documents for record in finished),
        "bytes": sum(record.bytes for record in finished),
        "shards": [asdict(record) for record in finished],
    }


def _records_of(meta: Mapping[str, Any]) -> Iterable[tuple[str, int, ShardRecord]]:
    for split in SPLITS:
        for index, record in enumerate(meta["splits"][split]["shards"]):
            yield split, index, ShardRecord(**record)


def _check_size(path: Path, file: Path, expected: int) -> None:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise _damaged(path, f"{file.parent.name}/{file.name} is missing") from None
    if size != expected:
        raise _damaged(path, f"{file.parent.name}/{file.name} has {size:,} bytes, not {expected:,}")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"token shards {path} are damaged: {what}. Delete the folder and prepare the data again.")
