"""Token shards written directly from token ids."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokenloom.data.shard_writer import finish_shards, open_shard
from tokenloom.data.shards import Shards, open_shards
from tokenloom.data.shards_meta import FINISHED_FOLDER
from tokenloom.data.tokenizers import Tokenizer

TRAIN, VAL = ["one document", "a second, longer document", "x", "the fourth"], ["held out"]


def write_shards(
    path: Path,
    tokenizer: Tokenizer,
    *,
    train: Sequence[np.ndarray],
    val: Sequence[np.ndarray] = (),
    shard_tokens: int | None = None,
) -> Shards:
    """One array per document; a new shard begins after `shard_tokens` tokens, <|endoftext|> not counted."""
    records = {}
    for split, documents in {"train": train, "val": val}.items():
        for name in (split, FINISHED_FOLDER):
            (path / name).mkdir(parents=True, exist_ok=True)
        records[split] = []
        for index, parts in enumerate(divide(documents, shard_tokens)):
            with open_shard(path, split, index, tokenizer) as writer:
                for starts_document, ids in parts:
                    if starts_document:
                        writer.end_document()
                    writer.append(ids)
            records[split].append(writer.record())
    finish_shards(path, tokenizer, records, request={}, sources=[])
    shutil.rmtree(path / FINISHED_FOLDER)
    return open_shards(path)


def divide(documents: Sequence[np.ndarray], shard_tokens: int | None) -> list[list[tuple[bool, np.ndarray]]]:
    """For each shard, its parts of documents, each with whether a document ends before it."""
    shards: list[list[tuple[bool, np.ndarray]]] = [[]]
    size = 0
    for number, ids in enumerate(documents):
        starts_document = number > 0
        while shard_tokens is not None and size + len(ids) > shard_tokens:
            head, ids = np.split(ids, [shard_tokens - size])
            shards[-1].append((starts_document, head))
            shards.append([])
            starts_document, size = False, 0
        shards[-1].append((starts_document, ids))
        size += len(ids)
    return shards
