"""A text to measure a model on: its ids, and how many words they are."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import numpy as np

from tokenloom.config import DataConfig
from tokenloom.data.documents import ReadOptions, ReadState
from tokenloom.data.shards import Split
from tokenloom.data.sources import STDIN, read_documents
from tokenloom.data.token_reader import TokenReader
from tokenloom.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class MeasuredText:
    """Ids (n,) of a text, "<|endoftext|>" between its documents, and its words, separated by white space."""

    ids: np.ndarray | TokenReader
    words: int


def read_text(data: DataConfig, tokenizer: Tokenizer) -> MeasuredText:
    """All documents of `data.sources` as one text; raises `DataError` where they cannot be read."""
    state = ReadState(ReadOptions(data.text_key, data.encoding_errors))
    # Standard input is read twice, once to identify it, so it has to be kept.
    stdin = io.BytesIO(sys.stdin.buffer.read()) if STDIN in data.sources else None
    ids: list[np.ndarray] = []
    words = 0
    for document in read_documents(data.sources, state, stdin):
        words += len(document.text.split())
        ids += [np.array([tokenizer.eot_id], dtype=np.uint32), tokenizer.encode_array(document.text, data.endoftext)]
    joined = np.concatenate(ids[1:]) if ids else np.empty(0, dtype=np.uint32)
    return MeasuredText(joined, words)


def text_of_split(split: Split, tokenizer: Tokenizer, chunk: int = 1 << 20) -> MeasuredText:
    """A split of token shards as a text."""
    words, before = 0, b" "
    for start in range(0, len(split), chunk):
        text = tokenizer.decode_bytes(split.read(start, min(chunk, len(split) - start)))
        words += len(text.split())
        # A word that a chunk's edge cuts in two was counted twice.
        words -= bool(text) and not text[:1].isspace() and not before[-1:].isspace()
        before = text or before
    return MeasuredText(split, words)
