"""Tokenizing a text with the GPT-2 tokenizer: `tokenloom prepare`, and tiktoken's encoder alone."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from functools import partial
from pathlib import Path

from tokenloom.bench.harness import Implementation, Metrics, worker_main

IMPLEMENTATIONS = (
    Implementation("tiktoken, one thread"),
    Implementation("tiktoken, all threads"),
    Implementation("tokenloom prepare"),
)


def write_text(path: Path, size: int) -> None:
    """Write at least `size` bytes of English prose and code: reshuffled docstrings with numbers that do not repeat."""
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


def tokenloom(text: str) -> Metrics:
    """From the file to checked token shards on disk."""
    from tokenloom.config import DataConfig
    from tokenloom.data.prepare import prepare

    out = Path(f"{text}.shards")
    started = time.perf_counter()
    shards = prepare(DataConfig(sources=(text,), tokenizer="gpt2"), out)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return _metrics(text, seconds, shards.train.n_tokens + shards.val.n_tokens)


def tiktoken(text: str, threads: int) -> Metrics:
    """Encoding only; token ids are discarded."""
    from tokenloom.book import get_encoding

    encoding = get_encoding("gpt2")
    started, tokens = time.perf_counter(), 0
    with open(text, encoding="utf-8") as file:
        texts = iter(lambda: file.read(1 << 18), "")
        # The ids of 1 GB would take 10 GB as lists, so each batch is discarded before the next.
        while batch := list(itertools.islice(texts, 64)):
            tokens += sum(map(len, encoding.encode_ordinary_batch(batch, num_threads=threads)))
    return _metrics(text, time.perf_counter() - started, tokens)


def _metrics(text: str, seconds: float, tokens: int) -> Metrics:
    return {"mb_per_sec": os.path.getsize(text) / 1e6 / seconds, "tokens": tokens}


TASKS = {
    "tokenloom prepare": tokenloom,
    "tiktoken, one thread": partial(tiktoken, threads=1),
    "tiktoken, all threads": partial(tiktoken, threads=os.cpu_count() or 1),
}

if __name__ == "__main__":
    worker_main(TASKS)
