"""The text of an evaluation: its tokens, and its number of words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokenloom.config import DataConfig
from tokenloom.data.documents import ReadOptions, ReadState
from tokenloom.data.shards import Split
from tokenloom.data.sources import read_documents
from tokenloom.data.streams import copied_streams
from tokenloom.data.token_reader import TokenArray, TokenReader
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.evaluation.words import count_words


@dataclass(frozen=True)
class EvaluationText:
    """The tokens of a text, with "<|endoftext|>" between its documents, and the number of its words."""

    tokens: TokenReader
    words: int


def read_text(data: DataConfig, tokenizer: Tokenizer) -> EvaluationText:
    """All documents of `data.sources` as one text; raises `DataError` if they cannot be read."""
    state = ReadState(ReadOptions(data.text_key, data.encoding_errors))
    ids: list[np.ndarray] = []
    eot = np.array([tokenizer.eot_id], dtype=np.uint32)
    with copied_streams(data.sources) as streams:
        for document in read_documents(data.sources, state, streams):
            ids += [eot, tokenizer.encode_array(document.text, data.endoftext)]
    return _text(TokenArray(np.concatenate(ids[1:]) if ids else np.empty(0, dtype=np.uint32)), tokenizer)


def text_of_split(split: Split, tokenizer: Tokenizer) -> EvaluationText:
    """A split of token shards as one text."""
    return _text(split, tokenizer)


def _text(tokens: TokenReader, tokenizer: Tokenizer) -> EvaluationText:
    return EvaluationText(tokens, count_words(tokens, tokenizer))
