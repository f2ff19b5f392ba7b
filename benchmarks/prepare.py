"""Speed and memory of preparing one large text, beside tiktoken's own batch encoder on the same file.

python benchmarks/prepare.py [--megabytes 1000] [--workers 2] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PREPARE = """
import sys
from tokenloom.config import DataConfig
from tokenloom.data.prepare import prepare
shards = prepare(DataConfig(sources=(sys.argv[1],), tokenizer="gpt2", workers=int(sys.argv[3])), sys.argv[2])
print(shards.train.n_tokens + shards.val.n_tokens)
"""

# The results of a batch are dropped before the next, or the ids of 1 GB would take 10 GB as lists.
TIKTOKEN = """
import itertools, sys, tiktoken
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.data.tokenizers.bytepairs import GPT2_PATTERN
tokens = load_tokenizer("gpt2").token_bytes[:-1]
ranks = {token: rank for rank, token in enumerate(tokens)}
encoding = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
count = 0
with open(sys.argv[1], encoding="utf-8") as file:
    texts = iter(lambda: file.read(1 << 18), "")
    while batch := list(itertools.islice(texts, 64)):
        count += sum(map(len, encoding.encode_ordinary_batch(batch, num_threads=int(sys.argv[3]))))
print(count)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=int, default=1000)
    arguments.add_argument("--workers", type=int, default=os.cpu_count())
    arguments.add_argument("--keep", type=Path, help="folder for the text, which is then left there")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.keep) as temporary:
        text = (options.keep or Path(temporary)) / f"text-{options.megabytes}.txt"
        if not text.exists():
            write_text(text, options.megabytes * 1_000_000)
        size = text.stat().st_size
        results = {"megabytes": size / 1e6, "workers": options.workers}
        for name, program in {"prepare": PREPARE, "tiktoken": TIKTOKEN}.items():
            results[name] = measure(program, text, Path(temporary) / "shards", options.workers, size)
    results["ratio"] = results["prepare"]["mb_per_second"] / results["tiktoken"]["mb_per_second"]
    print_table(results)
    print(json.dumps(results))


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


def measure(program: str, text: Path, out: Path, workers: int, size: int) -> dict[str, float]:
    """Run a program; its speed, and the most memory that it and its children held, shared pages counted repeatedly."""
    started = time.perf_counter()
    command = [sys.executable, "-c", program, str(text), str(out), str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    family = psutil.Process(process.pid)
    peak, processor = 0, 0.0
    while process.poll() is None:
        try:
            members = [family, *family.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in members))
            processor = max(processor, sum(sum(member.cpu_times()[:2]) for member in members))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    if process.returncode:
        raise SystemExit(f"the measured program failed with status {process.returncode}")
    return {
        "mb_per_second": size / 1e6 / seconds,
        "seconds": seconds,
        "peak_memory_mb": peak / 1e6,
        "busy_cores": processor / seconds,
        "tokens": int(output),
    }


def print_table(results: dict) -> None:
    print(f"{results['megabytes']:.0f} MB of text, {results['workers']} workers", file=sys.stderr)
    print(f"{'':10}{'MB/s':>8}{'seconds':>10}{'peak MB':>10}{'cores':>8}{'tokens':>14}", file=sys.stderr)
    for name in ("prepare", "tiktoken"):
        row = results[name]
        print(
            f"{name:10}{row['mb_per_second']:8.1f}{row['seconds']:10.1f}{row['peak_memory_mb']:10.0f}"
            f"{row['busy_cores']:8.2f}{row['tokens']:14,}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
