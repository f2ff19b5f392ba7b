"""The units of work of preparing data: the text of one shard, and how it is encoded and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypedDict, cast

from tokenloom.data.shard_writer import open_shard
from tokenloom.data.shards_meta import SPLITS, ShardRecord, finished_files, shard_files, token_dtype
from tokenloom.data.splitting import SplitText
from tokenloom.data.tokenizers import EndOfText, Tokenizer
from tokenloom.data.tokenizers.chunking import split_into_chunks
from tokenloom.errors import DataError
from tokenloom.storage import sha256_of, write_text
from tokenloom.strict_json import load_json

SHARD_BYTES = 1 << 24  # of text; also what each process holds in memory


@dataclass
class ShardJob:
    """The text of one shard: chunks of UTF-8, each with whether it starts a new document."""

    split: str
    index: int
    chunks: list[tuple[bool, bytes]] = field(default_factory=list[tuple[bool, bytes]])
    size: int = 0


@dataclass(frozen=True)
class ShardEncoder:
    """Turns the text of a shard into its files."""

    folder: Path
    tokenizer: Tokenizer
    endoftext: EndOfText

    def encode(self, job: ShardJob) -> ShardRecord:
        """Write the shard and, last, its record; a shard that an earlier call finished from the same input is kept."""
        record_file, _ = finished_files(self.folder, job.split, job.index)
        digest = self._input_digest(job)
        if (record := self._finished(job, digest)) is not None:
            return record
        with open_shard(self.folder, job.split, job.index, self.tokenizer) as writer:
            for starts_document, text in job.chunks:
                if starts_document:
                    writer.end_document()
                writer.append(self.tokenizer.encode_array(text.decode("utf-8"), self.endoftext))
        record = writer.record()
        write_text(record_file, json.dumps({"input": digest, "shard": asdict(record)}))
        return record

    def _input_digest(self, job: ShardJob) -> str:
        """A hash of everything that the files of the shard depend on."""
        eot_text = self.tokenizer.eot_text.encode("utf-8")
        digest = hashlib.blake2b(self.tokenizer.fingerprint.encode(), digest_size=16)
        for starts_document, text in job.chunks:
            mode = self.endoftext if eot_text in text else ""
            digest.update(b"%d %s %d " % (starts_document, mode.encode(), len(text)) + text)
        return digest.hexdigest()

    def _finished(self, job: ShardJob, digest: str) -> ShardRecord | None:
        """The record of the shard if it was written from the same input and its files are complete."""
        record_file, ends_file = finished_files(self.folder, job.split, job.index)
        tokens_file, _ = shard_files(self.folder / job.split, job.index)
        try:
            finished = cast("_FinishedShard", load_json(record_file.read_bytes()))
            record = ShardRecord(**finished["shard"])
            complete = tokens_file.stat().st_size == record.tokens * token_dtype(self.tokenizer.vocab_size).itemsize
            same = finished["input"] == digest and sha256_of(ends_file) == record.documents_sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if complete and same else None


class _ShardRecordJson(TypedDict):
    tokens: int
    documents: int
    bytes: int
    tokens_sha256: str
    documents_sha256: str


class _FinishedShard(TypedDict):
    input: str
    shard: _ShardRecordJson


def shard_jobs(texts: Iterable[SplitText], tokenizer: Tokenizer, endoftext: EndOfText) -> Iterator[ShardJob]:
    """The texts of each split, packed into shards in order; the same text always gives the same shards.

    Raises `DataError` if the text contains <|endoftext|> and `endoftext` is "refuse".
    """
    eot_text = tokenizer.eot_text
    current = {split: ShardJob(split, 0) for split in SPLITS}
    for split_text in texts:
        job = current[split_text.split]
        starts_document = job.index > 0 or job.size > 0  # no document precedes the first one of a split
        for text in split_into_chunks(split_text.texts, tokenizer.matched_tokens):
            if endoftext == "refuse" and eot_text in text:
                raise DataError(
                    f'{split_text.source} contains {eot_text}. Remove it, or pass --data.endoftext "token" or "text".'
                )
            data = text.encode("utf-8")
            job.chunks.append((starts_document, data))
            job.size += len(data)
            starts_document = False
            if job.size >= SHARD_BYTES:
                yield job
                job = current[split_text.split] = ShardJob(split_text.split, job.index + 1)
    yield from (job for job in current.values() if job.chunks)
