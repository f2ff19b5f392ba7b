"""How well a model predicts a text: nats per token, perplexity, bits per byte, each with what it was measured on.

Nats are summed over tokens and divided once, so that no window or batch weighs more than its tokens. A number without
its context and stride means little (the same model and text can give perplexities 37 and 48), so they stay together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tokenloom.config import ModelConfig
from tokenloom.data.token_reader import TokenReader
from tokenloom.errors import DataError, UsageError
from tokenloom.model.head import IGNORE_INDEX


class LossModel(Protocol):
    """What measuring asks of a model; every model of `tokenloom.model` has it."""

    config: ModelConfig

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def modules(self) -> Iterator[nn.Module]: ...


@dataclass(frozen=True)
class Measurement:
    """Sums over the scored tokens of a text, and how they were scored.

    The first token of a text is context only: nothing comes before it that could predict it. So n tokens give n - 1
    scored ones, and `bytes` is the length of those. `words` is not known to a measurement of tokens; whoever has the
    text can add it: `dataclasses.replace(measurement, words=len(text.split()))`.
    """

    nats: float
    tokens: int
    context: int
    stride: int
    bytes: int | None = None
    words: int | None = None

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The number of equally likely tokens that would be as hard to guess among; inf where no float can hold it."""
        return _exp(self.loss)

    @property
    def bits_per_byte(self) -> float | None:
        """Comparable between tokenizers, and with compressors; None where the number of bytes is not known."""
        return self.nats / math.log(2) / self.bytes if self.bytes else None

    @property
    def word_perplexity(self) -> float | None:
        """Perplexity of whole words, comparable between tokenizers; None where their number is not known."""
        return _exp(self.nats / self.words) if self.words else None


def measure(
    model: LossModel,
    tokens: np.ndarray | TokenReader,
    *,
    context: int,
    stride: int | None = None,
    batch_size: int = 8,
    byte_lengths: np.ndarray | None = None,
    device: torch.device | str | None = None,
    max_windows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Score every token of a text but its first, each exactly once, in windows of `context` tokens.

    A window starts `stride` tokens after the one before it, and scores only the tokens that no earlier window has
    scored: the first one all of its own, the others their last `stride`, with context - stride or more tokens to look
    back on. `stride` = `context` (the default) is fastest: windows that do not overlap. The last window may be short.

    `byte_lengths[id]` is the number of bytes that a token stands for. `max_windows` measures an evenly spread subset,
    the same at every call. `progress` is told windows done and windows in all. The model is in eval mode meanwhile,
    and then as it was; autocast is the caller's.

    Raises `UsageError` for a context longer than the model's, or numbers out of range, and `DataError` for a text of
    fewer than two tokens.
    """
    stride = context if stride is None else stride
    _check(len(tokens), model.config.block_size, context, stride, batch_size, max_windows)
    numbers = _spread(_count_windows(len(tokens) - 1, context, stride), max_windows)
    device = device or next(model.parameters()).device
    sums, done, scored, scored_bytes = [], 0, 0, 0
    with torch.no_grad(), evaluating(model.modules()):
        for ids, targets in _window_batches(tokens, numbers, context, stride, batch_size, model.config.vocabulary):
            done += len(ids)
            counted = targets[targets != IGNORE_INDEX]
            scored += counted.size
            if byte_lengths is not None:
                scored_bytes += int(byte_lengths[counted].sum())
            sums.append(model.loss(torch.from_numpy(ids).to(device), torch.from_numpy(targets).to(device), "sum"))
            if progress is not None:
                progress(done, len(numbers))
    # One transfer at the end: asking for each sum at once would make the device wait for the host. Then in float64.
    nats = torch.stack(sums).float().cpu().double().sum().item()
    return Measurement(nats, scored, context, stride, None if byte_lengths is None else scored_bytes)


def loss_over_batches(
    model: LossModel, batches: Iterable[tuple[Tensor, Tensor]], num_batches: int | None = None
) -> float:
    """The mean of the mean losses of (ids, targets) batches, as the book's `calc_loss_loader` (section 5.1).

    Takes the first `num_batches`, or all. Nothing to average gives nan. Batches of different sizes weigh alike, so
    this is for the book's figures; `measure` is for all others.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model.modules()):
        losses = [
            model.loss(ids.to(device), targets.to(device)).item() for ids, targets in islice(batches, num_batches)
        ]
    return sum(losses) / len(losses) if losses else math.nan


def windows(
    tokens: np.ndarray, config: ModelConfig, context: int, stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The windows that `measure` scores, one by one: ids and targets (1, T), `IGNORE_INDEX` where none counts."""
    _check(len(tokens), config.block_size, context, stride, 1, None)
    numbers = range(_count_windows(len(tokens) - 1, context, stride))
    return _window_batches(tokens, numbers, context, stride, 1, config.vocabulary)


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Eval mode for those of `modules` (as `model.modules()` gives them) that are training, and back afterwards."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Window(NamedTuple):
    """Inputs [start, stop) of a text; of their targets, those of inputs from `scored_from` on count."""

    start: int
    scored_from: int
    stop: int


def _window_batches(
    tokens: np.ndarray | TokenReader, numbers: Sequence[int], context: int, stride: int, batch_size: int, known: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inputs = len(tokens) - 1  # the last token is a target only
    for first in range(0, len(numbers), batch_size):
        batch = [_window(number, inputs, context, stride) for number in numbers[first : first + batch_size]]
        ids, targets = _read(tokens, batch, width=min(context, inputs))
        _refuse_unknown(ids, targets, known)
        yield ids, targets


def _count_windows(inputs: int, context: int, stride: int) -> int:
    return 1 + max(0, -(-(inputs - context) // stride))


def _window(number: int, inputs: int, context: int, stride: int) -> _Window:
    start = number * stride
    stop = start + context
    return _Window(start, stop - stride if number else 0, min(stop, inputs))


def _spread(count: int, limit: int | None) -> Sequence[int]:
    """`limit` of the numbers below `count`, evenly spread, or all of them."""
    if limit is None or limit >= count:
        return range(count)
    return [number * count // limit for number in range(limit)]


def _read(tokens: np.ndarray | TokenReader, windows: Sequence[_Window], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (windows, width) int64; what is no target of a window is IGNORE_INDEX."""
    ids = np.zeros((len(windows), width), dtype=np.int64)
    targets = np.full((len(windows), width), IGNORE_INDEX, dtype=np.int64)
    for row, (start, scored_from, stop) in enumerate(windows):
        count = stop - start
        text = tokens[start : stop + 1] if isinstance(tokens, np.ndarray) else tokens.read(start, count + 1)
        ids[row, :count] = text[:-1]
        targets[row, scored_from - start : count] = text[1 + scored_from - start :]
    return ids, targets


def _refuse_unknown(ids: np.ndarray, targets: np.ndarray, vocabulary: int) -> None:
    largest = max(ids.max(), targets.max())
    if largest >= vocabulary:
        raise DataError(
            f"the text has the token {largest}, but the model knows 0 to {vocabulary - 1}. "
            "Prepare the text with the tokenizer that the model was trained with."
        )


def _check(tokens: int, block_size: int, context: int, stride: int, batch_size: int, max_windows: int | None) -> None:
    if tokens < 2:
        raise DataError(f"measuring needs at least 2 tokens, got {tokens}. Give a longer text.")
    if not 1 <= context <= block_size:
        raise UsageError(f"context must be from 1 to the model's block_size {block_size}, got {context}. Lower it.")
    if not 1 <= stride <= context:
        raise UsageError(
            f"stride must be from 1 to the context {context}, got {stride}. A larger one would leave tokens out."
        )
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}. Try 8.")
    if max_windows is not None and max_windows < 1:
        raise UsageError(f"max_windows must be at least 1, got {max_windows}. Leave it out to measure the whole text.")


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
