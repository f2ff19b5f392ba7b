"""Section 5.2: the training run on The Verdict, its losses and its samples."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tokenloom.book import expected
from tokenloom.book.comparison import Comparison
from tokenloom.book.data import BatchLoader, BookTokenizer
from tokenloom.book.model import GPTModel
from tokenloom.book.training import plot_losses, train_model_simple

EPOCHS, STEPS, EVAL_FREQ = 10, 90, 5


def train(
    comparison: Comparison,
    text: str,
    tokenizer: BookTokenizer,
    loaders: tuple[BatchLoader, BatchLoader],
    device: torch.device,
    out: Path | None,
) -> None:
    """Train for 90 steps and compare losses and samples; loss plots are saved to `out`."""
    comparison.progress("5.2    training an LLM")
    torch.manual_seed(123)
    model = GPTModel(expected.GPT_CONFIG_124M).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    output = _ProgressOutput(comparison.progress)
    started = time.perf_counter()
    with contextlib.redirect_stdout(output):
        train_losses, val_losses, tokens_seen = train_model_simple(
            model,
            *loaders,
            optimizer,
            device,
            EPOCHS,
            eval_freq=EVAL_FREQ,
            eval_iter=5,
            start_context=expected.START_CONTEXT,
            tokenizer=tokenizer,
        )
    minutes = (time.perf_counter() - started) / 60
    comparison.note("5.2", "training", f"completed in {minutes:.2f} minutes")
    _compare_losses(comparison, train_losses, val_losses, tokens_seen)
    samples = [line for line in output.lines if line.startswith(expected.START_CONTEXT)]
    for epoch, (sample, actual) in enumerate(zip(expected.SAMPLES, samples, strict=True), start=1):
        comparison.random("5.2", f"sample of epoch {epoch}", sample, actual)
    best = min(range(len(val_losses)), key=val_losses.__getitem__)
    comparison.remarks += [
        f"Validation loss was lowest at step {EVAL_FREQ * best} ({val_losses[best]:.3f}), epoch "
        f"{EVAL_FREQ * best * EPOCHS / STEPS:.1f}, while training loss kept falling to {train_losses[-1]:.3f}: "
        "the model overfits.",
        f'Longest passage copied verbatim from the training text: "{longest_overlap(samples[-1], text)}"',
    ]
    if out is not None:
        epochs = torch.linspace(0, EPOCHS, len(train_losses))
        for name in ("loss-plot.pdf", "loss-plot.png"):
            plot_losses(epochs, tokens_seen, train_losses, val_losses, out / name)


def longest_overlap(sample: str, text: str) -> str:
    """The longest sequence of words of `sample` that occurs in `text`; runs of whitespace count as one space."""
    words, normalized_text = sample.split(), f" {' '.join(text.split())} "
    longest: list[str] = []
    for start in range(len(words)):
        end = start + len(longest) + 1
        while end <= len(words) and f" {' '.join(words[start:end])} " in normalized_text:
            longest = words[start:end]
            end += 1
    return " ".join(longest)


def _compare_losses(
    comparison: Comparison, train_losses: list[float], val_losses: list[float], tokens_seen: list[int]
) -> None:
    for i, (step, tokens, losses) in enumerate(expected.LOSSES):
        comparison.random(
            "5.2", f"train and val loss, step {step}", losses, f"{train_losses[i]:.3f} {val_losses[i]:.3f}"
        )
        if tokens != tokens_seen[i]:
            comparison.equal("5.2", f"tokens seen, step {step}", tokens, tokens_seen[i])
    comparison.equal("5.2", "tokens seen in total", 46_080, tokens_seen[-1] + 4 * 512)
    comparison.check("5.2", "final train loss < 1, val loss < 7", train_losses[-1] < 1 and val_losses[-1] < 7)


class _ProgressOutput(io.TextIOBase):
    """Keeps the lines that the training loop prints, and forwards them with an estimate of the remaining time."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._progress = progress
        self._started = time.perf_counter()
        self._incomplete = ""

    def write(self, text: str) -> int:
        *lines, self._incomplete = (self._incomplete + text).split("\n")
        for line in lines:
            self.lines.append(line)
            self._progress(line + self._remaining(line))
        return len(text)

    def _remaining(self, line: str) -> str:
        if "(Step " not in line:
            return ""
        done = int(line.partition("(Step ")[2].partition(")")[0]) + 1
        seconds = (time.perf_counter() - self._started) / done * (STEPS - done)
        return f"  ({done} of {STEPS}, about {math.ceil(seconds / 60)} min left)" if done > 1 else ""
