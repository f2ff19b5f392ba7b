"""Replay of chapter 5: runs its code and compares each result with the one that the book prints."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tokenloom.book.comparison import Comparison, ReplayRow
from tokenloom.book.data import get_encoding
from tokenloom.book.sections import (
    decode,
    evaluate_untrained,
    generate_untrained,
    load_batches,
    measure_loss,
    save_and_load,
    split_text,
)
from tokenloom.book.training_section import train
from tokenloom.compute.runtime import choose_runtime
from tokenloom.data.corpora import corpus_file


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """The compared rows of a replay."""

    rows: Sequence[ReplayRow]
    rule: Literal["exact", "bands"]
    """How rows of class R are compared: for equality, or within a range."""
    seconds: float
    remarks: Sequence[str]

    @property
    def passed(self) -> int:
        return sum(row.ok is True for row in self.rows)

    @property
    def failed(self) -> int:
        return sum(row.ok is False for row in self.rows)


def replay_chapter5(
    *,
    quick: bool = False,
    out: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda line: None,
) -> ReplayResult:
    """Run chapter 5 on The Verdict and compare every result; `quick` skips the 90 training steps.

    Plots are saved to the folder `out`. `progress` is called with lines of text. Raises `DataError` if the text cannot
    be downloaded.
    """
    started = time.perf_counter()
    torch_device = choose_runtime(device, "fp32").device
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    exact = (platform.system(), platform.machine(), torch_device.type) == ("Linux", "x86_64", "cpu")
    comparison = Comparison(exact, progress)
    text = corpus_file("the-verdict").read_text(encoding="utf-8")
    tokenizer = get_encoding("gpt2")
    with torch.random.fork_rng(devices=[]):
        generate_untrained(comparison, tokenizer)
        measure_loss(comparison, tokenizer)
        split_text(comparison, text)
        loaders = load_batches(comparison, text)
        evaluate_untrained(comparison, loaders, torch_device)
        if not quick:
            train(comparison, text, tokenizer, loaders, torch_device, out)
        decode(comparison, out)
        save_and_load(comparison, tokenizer)
    return ReplayResult(
        rows=comparison.rows,
        rule="exact" if exact else "bands",
        seconds=time.perf_counter() - started,
        remarks=comparison.remarks,
    )
