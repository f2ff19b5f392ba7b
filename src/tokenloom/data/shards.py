"""Token shards: the token ids of a corpus on disk, checked when opened, memory-mapped when read.

    OUT/meta.json                       counts, fingerprints, the sha256 of every file (`ShardsMeta`)
    OUT/tokenizer/                      the tokenizer, in Hugging Face's format
    OUT/train/tokens-00000.bin …        token ids, little-endian uint16, or uint32 for more than 65,536 tokens
    OUT/train/documents-00000.idx …     document ends, little-endian uint64, counted from the start of the split
    OUT/val/…                           the same for validation

The end of a document is the position after its last token, including the <|endoftext|> that separates it from the
next document; the last end is the number of tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tokenloom.data.shards_meta import (
    SPLITS,
    TOKENIZER_FOLDER,
    ShardRecord,
    ShardsMeta,
    corrupt_shards,
    read_meta,
    shard_files,
)
from tokenloom.data.splitting import share_notice
from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.errors import DataError, TokenizerError, TokenloomError
from tokenloom.run_folder import RunFolder
from tokenloom.storage import sha256_of

_MAX_MAPPED_SHARDS = 64  # each needs an open file, and a corpus can have thousands of shards


class Split:
    """The tokens of one split as one long array, independent of shard boundaries."""

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
        """Tokens `start` to `start + count - 1`, (count,) uint16 or uint32; read-only if they are in one shard.

        Raises IndexError if the range is not within the split.
        """
        if start < 0 or count < 0 or start + count > self.n_tokens:
            raise IndexError(f"tokens {start} to {start + count} of a split of {self.n_tokens}")
        arrays: list[np.ndarray] = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while count > 0:
            offset = start - int(self._starts[shard])
            array = self._map(shard)[offset : offset + count]
            arrays.append(array)
            start, count, shard = start + len(array), count - len(array), shard + 1
        return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, dtype=self._dtype), *arrays])

    def document_ends(self) -> np.ndarray:
        """The position after each document, (n_documents,) uint64; the last one is n_tokens."""
        files = [shard_files(self._folder, index)[1] for index in range(len(self._records))]
        return np.concatenate([np.empty(0, dtype="<u8"), *(np.fromfile(file, dtype="<u8") for file in files)])

    def _map(self, shard: int) -> np.ndarray:
        if shard in self._mapped:
            self._mapped.move_to_end(shard)
        elif self._records[shard].tokens == 0:
            return np.empty(0, dtype=self._dtype)  # an empty file cannot be mapped
        else:
            if len(self._mapped) >= _MAX_MAPPED_SHARDS:
                self._mapped.popitem(last=False)
            self._mapped[shard] = np.memmap(shard_files(self._folder, shard)[0], dtype=self._dtype, mode="r")
        return self._mapped[shard]


@dataclass(frozen=True)
class Shards:
    """An open folder of token shards: two splits and the tokenizer of their tokens."""

    path: Path
    meta: ShardsMeta
    train: Split
    val: Split
    already_prepared: bool = False
    """Whether `prepare` found the shards complete instead of writing them."""
    notices: tuple[str, ...] = ()
    """What the user should know about the split, each in one line."""

    @property
    def fingerprint(self) -> str:
        """A sha256 of the tokens, the document ends and the tokenizer: equal fingerprints mean equal batches."""
        return self.meta.fingerprint

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the tokens; raises `DataError` if it is missing or corrupt."""
        try:
            tokenizer = load_tokenizer(self.path / TOKENIZER_FOLDER)
        except TokenizerError as error:
            raise DataError(f"the tokenizer of token shards {self.path} cannot be loaded: {error}") from None
        if tokenizer.fingerprint != self.meta.tokenizer.fingerprint:
            raise corrupt_shards(self.path, "its tokenizer is not the one that encoded the tokens")
        return tokenizer

    def verify(self) -> None:
        """Compare the sha256 of every file; raises `DataError` for the first one that differs."""
        for split in SPLITS:
            for index, record in enumerate(self.meta.splits[split].shards):
                digests = record.tokens_sha256, record.documents_sha256
                for file, expected in zip(shard_files(self.path / split, index), digests, strict=True):
                    if sha256_of(file) != expected:
                        raise corrupt_shards(self.path, f"the sha256 of {split}/{file.name} differs")
        assert self.tokenizer.vocab_size == self.meta.tokenizer.vocab_size


def open_shards(path: str | Path) -> Shards:
    """Open a folder that `prepare` wrote; raises `DataError` if a file is missing or has the wrong size."""
    path = Path(path)
    meta = read_meta(path)
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    for split in SPLITS:
        for index, record in enumerate(meta.splits[split].shards):
            sizes = record.tokens * dtype.itemsize, record.documents * 8
            for file, size in zip(shard_files(path / split, index), sizes, strict=True):
                _check_size(path, file, size)
    train, val = (Split(path / split, meta.splits[split].shards, dtype) for split in SPLITS)
    requested = meta.request.get("val_fraction")
    notice = share_notice(train.n_bytes, val.n_bytes, requested) if isinstance(requested, float) else None
    return Shards(path, meta, train, val, notices=(notice,) if notice else ())


def shards_of_run(run: RunFolder) -> Shards | None:
    """The token shards that a run was trained on; None if they were moved, deleted or replaced."""
    identity = run.identity()
    if identity is None or identity.shards is None:
        return None
    try:
        shards = open_shards(identity.shards)
    except TokenloomError:
        return None
    return shards if shards.fingerprint == identity.dataset else None


def _check_size(path: Path, file: Path, expected: int) -> None:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise corrupt_shards(path, f"{file.parent.name}/{file.name} is missing") from None
    if size != expected:
        raise corrupt_shards(path, f"{file.parent.name}/{file.name} has {size:,} bytes, not {expected:,}")
