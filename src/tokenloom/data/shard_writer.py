"""Writing token shards: one shard at a time, then the files that complete the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenloom.data.shards_meta import (
    FORMAT,
    SPLITS,
    TOKENIZER_FOLDER,
    VERSION,
    ShardRecord,
    ShardsMeta,
    SourceMeta,
    SplitMeta,
    TokenizerMeta,
    finished_files,
    shard_files,
    token_dtype,
    write_meta,
)
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.storage import atomic_file, write_bytes


@contextlib.contextmanager
def open_shard(folder: Path, split: str, index: int, tokenizer: Tokenizer) -> Generator[ShardWriter, None, None]:
    """A writer of one shard, whose files appear on success only.

    Document ends are counted from the start of the shard; `finish_shards` writes the final ones.
    """
    with atomic_file(shard_files(folder / split, index)[0]) as temporary, temporary.open("wb") as file:
        writer = ShardWriter(file, tokenizer)
        yield writer
        write_bytes(finished_files(folder, split, index)[1], writer.document_ends())


class ShardWriter:
    """Appends tokens to a file, and counts and hashes them."""

    def __init__(self, file: BinaryIO, tokenizer: Tokenizer) -> None:
        self._file = file
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._byte_lengths = tokenizer.byte_lengths
        self._eot = np.array([tokenizer.eot_id])
        self._ends: list[int] = []
        self._n_tokens = self._n_bytes = 0
        self._sha256 = hashlib.sha256()

    def append(self, ids: np.ndarray) -> None:
        data = ids.astype(self._dtype).tobytes()
        self._file.write(data)
        self._sha256.update(data)
        self._n_tokens += len(ids)
        self._n_bytes += int(self._byte_lengths[ids].sum())

    def end_document(self) -> None:
        """Append <|endoftext|> to the current document, which may have started in an earlier shard."""
        self.append(self._eot)
        self._ends.append(self._n_tokens)

    def document_ends(self) -> bytes:
        return np.array(self._ends, dtype="<u8").tobytes()

    def record(self) -> ShardRecord:
        """The counts and hashes of what was written so far."""
        return ShardRecord(
            tokens=self._n_tokens,
            documents=len(self._ends),
            bytes=self._n_bytes,
            tokens_sha256=self._sha256.hexdigest(),
            documents_sha256=hashlib.sha256(self.document_ends()).hexdigest(),
        )


def finish_shards(
    folder: Path,
    tokenizer: Tokenizer,
    records: Mapping[str, Sequence[ShardRecord]],
    *,
    request: Mapping[str, object],
    sources: Sequence[SourceMeta],
    replaced: int = 0,
) -> None:
    """Complete a folder whose shards are written: the document ends, the tokenizer and, last, meta.json."""
    splits = {split: _finish_split(folder, split, records.get(split, ())) for split in SPLITS}
    shard_records = [asdict(record) for split in SPLITS for record in splits[split].shards]
    content = json.dumps([tokenizer.fingerprint, *shard_records], sort_keys=True)
    meta = ShardsMeta(
        format=FORMAT,
        version=VERSION,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        dtype="uint16" if token_dtype(tokenizer.vocab_size).itemsize == 2 else "uint32",
        tokenizer=TokenizerMeta(tokenizer.kind, tokenizer.vocab_size, tokenizer.eot_id, tokenizer.fingerprint),
        splits=splits,
        request=request,
        sources=list(sources),
        replaced=replaced,
    )
    if not (folder / TOKENIZER_FOLDER).is_dir():
        tokenizer.save(folder / TOKENIZER_FOLDER)
    write_meta(folder, meta)


def _finish_split(folder: Path, split: str, records: Sequence[ShardRecord]) -> SplitMeta:
    """Write the document ends of each shard, counted from the start of the split."""
    (folder / split).mkdir(exist_ok=True)
    expected = {file for index in range(len(records)) for file in shard_files(folder / split, index)}
    for file in (folder / split).iterdir():
        if file not in expected:  # left by an interrupted call, of a text that was longer
            file.unlink()
    finished: list[ShardRecord] = []
    start = 0
    for index, record in enumerate(records):
        ends = np.fromfile(finished_files(folder, split, index)[1], dtype="<u8") + np.uint64(start)
        start += record.tokens
        if index == len(records) - 1 and start > 0:
            ends = np.append(ends, np.uint64(start))  # the last document has no <|endoftext|> after it
        data = ends.astype("<u8").tobytes()
        write_bytes(shard_files(folder / split, index)[1], data)
        digest = hashlib.sha256(data).hexdigest()
        finished.append(ShardRecord(record.tokens, len(ends), record.bytes, record.tokens_sha256, digest))
    return SplitMeta(
        tokens=start,
        documents=sum(record.documents for record in finished),
        bytes=sum(record.bytes for record in finished),
        shards=finished,
    )
