"""Text to token shards with GPT-2's tokenizer, beside tiktoken's encoder with one thread and with all."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from tokenloom.bench.harness import Contender, answer

CONTENDERS = [
    Contender("tiktoken, one thread"),
    Contender("tiktoken, all threads"),
    Contender("tokenloom prepare"),
]


def write_text(path: Path, size: int) -> None:
    """English prose and code, shuffled anew each time round, with numbers that never repeat."""
    from tokenloom.data.corpora import python_docs

    shuffle = random.Random(0)
    docs, written = python_docs(), 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        while written < size:
            shuffle.shuffle(docs)
            for number, text in enumerate(docs):
                written += len(f"{text}\n\n({written}, {number})\n\n".encode())
                file.write(f"{text}\n\n({written}, {number})\n\n")
                if written >= size:
                    break


def ours(text: str) -> dict[str, Any]:
    """From a file to checked shards on the disk."""
    from tokenloom.config import DataConfig
    from tokenloom.data.prepare import prepare

    out = Path(f"{text}.shards")
    before = time.perf_counter()
    shards = prepare(DataConfig(sources=(text,), tokenizer="gpt2"), out)
    seconds = time.perf_counter() - before
    shutil.rmtree(out)
    return _figures(text, seconds, shards.train.n_tokens + shards.val.n_tokens)


def tiktoken(text: str, threads: int) -> dict[str, Any]:
    """Encoding alone, the ids thrown away, by a fresh encoding of the same tokens."""
    import tiktoken

    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.data.tokenizers.bpe import GPT2_PATTERN

    ranks = {token: rank for rank, token in enumerate(load_tokenizer("gpt2").token_bytes[:-1])}
    encoding = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    before, count = time.perf_counter(), 0
    with open(text, encoding="utf-8") as file:
        texts = iter(lambda: file.read(1 << 18), "")
        # A batch's ids are dropped before the next, or those of 1 GB would take 10 GB as lists.
        while batch := list(itertools.islice(texts, 64)):
            count += sum(map(len, encoding.encode_ordinary_batch(batch, num_threads=threads)))
    return _figures(text, time.perf_counter() - before, count)


def _figures(text: str, seconds: float, tokens: int) -> dict[str, Any]:
    return {"mb_per_sec": os.path.getsize(text) / 1e6 / seconds, "tokens": tokens}


if __name__ == "__main__":
    answer(
        {
            "tokenloom prepare": ours,
            "tiktoken, one thread": partial(tiktoken, threads=1),
            "tiktoken, all threads": partial(tiktoken, threads=os.cpu_count() or 1),
        }
    )
