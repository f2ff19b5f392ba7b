"""The loss of a model on a text, summed over all tokens and divided once.

Averaging the means of windows or batches instead would give tokens in short ones a larger weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tokenloom.compute.parallel import World
from tokenloom.config import ModelConfig
from tokenloom.data.token_reader import TokenReader
from tokenloom.errors import DataError, UsageError
from tokenloom.evaluation.measurement import Measurement
from tokenloom.model.head import IGNORE_INDEX
from tokenloom.model.language_model import LanguageModel


def measure(
    model: LanguageModel,
    tokens: TokenReader,
    *,
    context: int,
    stride: int | None = None,
    batch_size: int = 8,
    byte_lengths: np.ndarray | None = None,
    device: torch.device | str | None = None,
    max_windows: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    world: World | None = None,
) -> Measurement:
    """Score every token of a text but the first, each exactly once, in windows of `context` tokens.

    A window starts `stride` tokens after the previous one. The first window scores all of its targets, the others only
    their last `stride`, which have at least context - stride tokens of context. The default stride, `context`, gives
    windows that do not overlap, and is the fastest. The last window may be shorter.

    `byte_lengths[id]` is the length of a token in bytes. `max_windows` limits the evaluation to a subset of windows,
    evenly spread and the same in every call. `progress` is called with the numbers of finished and of all windows. The
    model is in eval mode meanwhile. The caller chooses autocast.

    Several processes, of which `world` is given, share the windows: each computes as many batches as the others, and
    gets the sums over all of them.

    Raises `UsageError` for options out of range, and `DataError` for fewer than two tokens or for tokens outside the
    model's vocabulary.
    """
    stride = context if stride is None else stride
    _validate(len(tokens), model.config.block_size, context, stride, batch_size, max_windows)
    numbers = _evenly_spread(_count_windows(len(tokens) - 1, context, stride), max_windows)
    world = World() if world is None else world
    shared = _share(numbers, world, partial(_window, inputs=len(tokens) - 1, context=context, stride=stride))
    device = device or next(model.parameters()).device
    sums: list[Tensor] = []
    done, scored, scored_bytes = 0, 0, 0
    with torch.no_grad(), evaluating(model.modules()):
        for ids, targets in _window_batches(tokens, shared, context, batch_size, model.config.vocabulary):
            done = min(done + len(ids) * world.world_size, len(numbers))
            scored_targets = targets[targets != IGNORE_INDEX]
            scored += scored_targets.size
            if byte_lengths is not None:
                scored_bytes += int(byte_lengths[scored_targets].sum())
            sums.append(model.loss(torch.as_tensor(ids, device=device), torch.as_tensor(targets, device=device), "sum"))
            if progress is not None:
                progress(done, len(numbers))
    # Transferred once at the end, because each transfer waits for the device; summed in float64.
    nats = torch.stack(sums).float().cpu().double().sum().item()
    nats, all_scored, all_bytes = world.sum([nats, scored, scored_bytes])
    scored_length = None if byte_lengths is None else int(all_bytes)
    return Measurement(nats=nats, tokens=int(all_scored), context=context, stride=stride, bytes=scored_length)


def default_context(block_size: int, tokens: int) -> int:
    """The context in which a text of so many tokens is scored unless another one is given."""
    return min(block_size, max(1, tokens - 1))


def loss_over_batches(
    model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], num_batches: int | None = None
) -> float:
    """Mean of the mean losses of the first `num_batches` batches (ids, targets), or of all: the book's
    `calc_loss_loader` (section 5.1).

    Batches of different sizes have equal weight; use `measure` except to reproduce the book. NaN without batches.
    """
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model.modules()):
        losses = [
            model.loss(ids.to(device), targets.to(device)).item() for ids, targets in islice(batches, num_batches)
        ]
    return sum(losses) / len(losses) if losses else math.nan


def windows(
    tokens: TokenReader, config: ModelConfig, context: int, stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The windows of `measure` one by one: ids and targets (1, T); targets not scored are `IGNORE_INDEX`."""
    _validate(len(tokens), config.block_size, context, stride, 1, None)
    numbers = range(_count_windows(len(tokens) - 1, context, stride))
    all_windows = map(partial(_window, inputs=len(tokens) - 1, context=context, stride=stride), numbers)
    return _window_batches(tokens, all_windows, context, 1, config.vocabulary)


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Generator[None]:
    """Eval mode for `modules` (those of `model.modules()`); afterwards each is in its previous mode."""
    in_training_mode = [module for module in modules if module.training]
    for module in in_training_mode:
        module.training = False
    try:
        yield
    finally:
        for module in in_training_mode:
            module.training = True


class _Window(NamedTuple):
    """Input positions [start, stop) of a text; the targets of inputs from `scored_from` are scored."""

    start: int
    scored_from: int
    stop: int


def _window_batches(
    tokens: TokenReader, windows: Iterable[_Window], context: int, batch_size: int, vocabulary: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    width = min(context, len(tokens) - 1)  # the last token is only a target
    remaining = iter(windows)
    while batch := list(islice(remaining, batch_size)):
        ids, targets = _read(tokens, batch, width)
        _check_vocabulary(ids, targets, vocabulary)
        yield ids, targets


def _share(numbers: Sequence[int], world: World, window: Callable[[int], _Window]) -> Iterator[_Window]:
    """The windows of one process: every `world_size`-th, and if one is missing at the end, one that is not scored.

    All processes get the same number of windows, because those of a sharded model compute each batch together.
    """
    own = numbers[world.rank :: world.world_size]
    missing = -(-len(numbers) // world.world_size) - len(own)
    first = window(0)
    return chain(map(window, own), repeat(first._replace(scored_from=first.stop), missing))


def _count_windows(inputs: int, context: int, stride: int) -> int:
    return 1 + max(0, -(-(inputs - context) // stride))


def _window(number: int, inputs: int, context: int, stride: int) -> _Window:
    start = number * stride
    stop = start + context
    return _Window(start, stop - stride if number else 0, min(stop, inputs))


def _evenly_spread(count: int, limit: int | None) -> Sequence[int]:
    """At most `limit` of the numbers below `count`, evenly spread."""
    if limit is None or limit >= count:
        return range(count)
    return [number * count // limit for number in range(limit)]


def _read(tokens: TokenReader, windows: Sequence[_Window], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (windows, width) int64, short windows padded; targets not scored are IGNORE_INDEX."""
    ids = np.zeros((len(windows), width), dtype=np.int64)
    targets = np.full((len(windows), width), IGNORE_INDEX, dtype=np.int64)
    for row, (start, scored_from, stop) in enumerate(windows):
        count = stop - start
        text = tokens.read(start, count + 1)
        ids[row, :count] = text[:-1]
        targets[row, scored_from - start : count] = text[1 + scored_from - start :]
    return ids, targets


def _check_vocabulary(ids: np.ndarray, targets: np.ndarray, vocabulary: int) -> None:
    largest = max(ids.max(), targets.max())
    if largest >= vocabulary:
        raise DataError(
            f"token {largest} of the text is outside the model's vocabulary, 0 to {vocabulary - 1}. "
            "Encode the text with the tokenizer that the model was trained with."
        )


def _validate(
    tokens: int, block_size: int, context: int, stride: int, batch_size: int, max_windows: int | None
) -> None:
    if tokens < 2:
        raise DataError(f"evaluation needs at least 2 tokens, got {tokens}. Use a longer text.")
    if not 1 <= context <= block_size:
        raise UsageError(f"context must be from 1 to the model's block_size {block_size}, got {context}.")
    if not 1 <= stride <= context:
        raise UsageError(
            f"stride must be from 1 to the context {context}, got {stride}. A larger one would skip tokens."
        )
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}. Try 8.")
    if max_windows is not None and max_windows < 1:
        raise UsageError(f"max_windows must be at least 1, got {max_windows}. Omit it to evaluate on the whole text.")
