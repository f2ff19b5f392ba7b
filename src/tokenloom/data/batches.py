"""Training batches as a pure function of (seed, step, rank, world size), without any state to save."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tokenloom.data.token_reader import TokenReader
from tokenloom.errors import DataError


class Batches:
    """Windows of `block_size` tokens, with the next token at each position as target, in an order fixed by the seed.

    `windows` start at the multiples of `stride` (the book, section 2.6: while start < tokens - block_size). Each is
    used once per epoch and they are reshuffled every epoch; a batch can span two epochs, so no window is dropped.
    `shifted` windows start at other positions in each epoch after the first: the multiples plus an offset below
    `stride`, so that a text of several epochs is not cut at the same places every time. `offsets` start at random
    positions (nanoGPT). The batch of `first_step` begins with window `first_window`: a run that is resumed with
    another batch size continues where it was. Raises `DataError` if the text is too short for one window.
    """

    def __init__(
        self,
        source: TokenReader,
        *,
        block_size: int,
        batch_size: int,
        seed: int,
        order: Literal["windows", "shifted", "offsets"] = "windows",
        stride: int | None = None,
        first_step: int = 0,
        first_window: int = 0,
    ) -> None:
        self.source, self.block_size, self.batch_size, self.seed = source, block_size, batch_size, seed
        self.stride = stride or block_size
        self._first_step, self._first_window = first_step, first_window
        self._starts = self._offset_starts if order == "offsets" else self._window_starts
        self._is_shifted = order == "shifted"
        self.n_windows = count_windows(len(source), block_size, self.stride)
        if self.n_windows == 0:
            raise DataError(
                f"{len(source):,} tokens are too few for a context of {block_size:,}. "
                f"Use a longer text, or --model.block-size {max(1, len(source) // 2)}.",
                topic="short text",
            )

    def starts(self, step: int) -> np.ndarray:
        """The start of each window of a step, over all ranks: (batch_size,) positions in the text."""
        return self._starts(step)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """One rank's part of a step's batch: ids and targets, each (batch_size / world_size, block_size) int64."""
        share = self.batch_size // world_size
        assert share * world_size == self.batch_size, "the batch size is divisible by the world size"
        starts = self.starts(step)[rank * share : (rank + 1) * share]
        rows = np.stack([self.source.read(int(start), self.block_size + 1) for start in starts]).astype(np.int64)
        windows = torch.as_tensor(rows)  # (share, block_size + 1)
        return windows[:, :-1], windows[:, 1:]

    def epoch(self, step: int) -> float:
        """The number of passes over the text after `step` steps."""
        return self._windows_before(step) / self.n_windows

    def _windows_before(self, step: int) -> int:
        return self._first_window + (step - self._first_step) * self.batch_size

    def _window_starts(self, step: int) -> np.ndarray:
        first = self._windows_before(step)
        numbers = np.arange(first, first + self.batch_size)
        epochs, positions = np.divmod(numbers, self.n_windows)
        starts = np.empty_like(positions)
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            windows = _permutation(self.n_windows, self.seed, int(epoch))[positions[in_epoch]]
            starts[in_epoch] = windows * self.stride + self._shift(int(epoch))
        return np.minimum(starts, len(self.source) - self.block_size - 1)  # a shifted window can pass the end

    def _shift(self, epoch: int) -> int:
        if not self._is_shifted or epoch == 0:
            return 0
        return int(np.random.default_rng([self.seed, epoch, self.stride]).integers(self.stride))

    def _offset_starts(self, step: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        return generator.integers(0, len(self.source) - self.block_size, self.batch_size)


def count_windows(tokens: int, block_size: int, stride: int) -> int:
    """The number of windows that start at a multiple of `stride` and are followed by at least one more token."""
    return max(0, -(-(tokens - block_size) // stride))


@lru_cache(maxsize=2)  # a batch can span two epochs
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
