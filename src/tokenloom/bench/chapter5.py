"""The training loop of the book's chapter 5 with its evaluations and samples: the book's code and `tokenloom.book`.

Install the book's code with `pip install --no-deps llms-from-scratch==1.0.19`.
"""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import io
import time
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module

import torch
from torch import nn
from torch.utils.data import DataLoader

from tokenloom import book
from tokenloom.bench.harness import Implementation, Metrics, Result, worker_main
from tokenloom.book.data import BatchLoader
from tokenloom.book.expected import GPT_CONFIG_124M, START_CONTEXT
from tokenloom.data.corpora import corpus_file

BATCH_SIZE, CONTEXT, SEED = 2, 256, 123
IMPLEMENTATIONS = (
    Implementation("the book", requires=("llms_from_scratch",)),
    Implementation("tokenloom.book"),
)

# Text, shuffle, drop_last -> batches.
LoaderFunction = Callable[[str, bool, bool], BatchLoader]


def same_output(results: Sequence[Result]) -> bool:
    """Whether all implementations printed the same lines."""
    return len({value for result in results for value in result.values("output_crc32")}) == 1


def tokenloom_book(epochs: int) -> Metrics:
    def make_loader(text: str, shuffle: bool, drop_last: bool) -> BatchLoader:
        return book.create_dataloader_v1(
            text, BATCH_SIZE, CONTEXT, stride=CONTEXT, shuffle=shuffle, drop_last=drop_last
        )

    return _measure(epochs, make_loader, book.GPTModel, book.train_model_simple)


def the_book(epochs: int) -> Metrics:
    ch02, ch04, ch05 = (import_module(f"llms_from_scratch.{name}") for name in ("ch02", "ch04", "ch05"))
    encoding = book.get_encoding("gpt2")

    def make_loader(text: str, shuffle: bool, drop_last: bool) -> BatchLoader:
        # Its create_dataloader_v1 would download GPT-2's encoding.
        dataset = ch02.GPTDatasetV1(text, encoding, CONTEXT, CONTEXT)
        return DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=shuffle, drop_last=drop_last)

    return _measure(epochs, make_loader, ch04.GPTModel, ch05.train_model_simple)


def _measure(
    epochs: int,
    make_loader: LoaderFunction,
    model_class: Callable[[dict[str, int | float | bool]], nn.Module],
    train: Callable[..., object],
) -> Metrics:
    text = corpus_file("the-verdict").read_text(encoding="utf-8")
    boundary = int(0.9 * len(text))
    torch.manual_seed(SEED)
    train_loader = make_loader(text[:boundary], True, True)
    val_loader = make_loader(text[boundary:], False, False)
    torch.manual_seed(SEED)
    model = model_class(GPT_CONFIG_124M)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    output = io.StringIO()
    started = time.perf_counter()
    with contextlib.redirect_stdout(output):
        train(
            model, train_loader, val_loader, optimizer, torch.device("cpu"), epochs, 5, 5, START_CONTEXT,
            book.get_encoding("gpt2"),
        )  # fmt: skip
    seconds = time.perf_counter() - started
    return {"train_seconds": seconds, "output_crc32": zlib.crc32(output.getvalue().encode())}


TASKS = {"the book": the_book, "tokenloom.book": tokenloom_book}

if __name__ == "__main__":
    worker_main(TASKS)
