"""Batches as a pure function of (seed, step, rank, number of ranks): nothing to save, nothing to replay."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from tokenloom.errors import DataError


class TokenSource(Protocol):
    """Anything that gives tokens by position: a split of token shards, or an array wrapped to look like one."""

    def __len__(self) -> int: ...
    def read(self, start: int, count: int) -> np.ndarray: ...


class Batches:
    """Windows of `block_size` tokens and the tokens that follow each, in an order fixed by the seed.

    `windows` starts at every multiple of `stride` (the book, section 2.6: while start < tokens - block_size), each
    once an epoch, reshuffled every epoch; a batch may span two epochs, so that no window is dropped. `offsets` starts
    anywhere, at random (nanoGPT). Raises `DataError` if the text is too short for a single window.
    """

    def __init__(
        self,
        source: TokenSource,
        *,
        block_size: int,
        batch_size: int,
        seed: int,
        order: Literal["windows", "offsets"] = "windows",
        stride: int | None = None,
    ) -> None:
        self.source, self.block_size, self.batch_size, self.seed = source, block_size, batch_size, seed
        self.stride = stride or block_size
        self._starts = {"windows": self._window_starts, "offsets": self._offset_starts}[order]
        self.n_windows = count_windows(len(source), block_size, self.stride)
        if self.n_windows == 0:
            raise DataError(
                f"{len(source):,} tokens are too few for a context of {block_size:,}. "
                f"Use a longer text, or --model.block-size {max(1, len(source) // 2)}."
            )

    def starts(self, step: int) -> np.ndarray:
        """Where the windows of a whole step begin: (batch_size,) positions in the text."""
        return self._starts(step)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """This rank's share of a step: ids and targets, each (batch_size / world_size, block_size) int64."""
        share = self.batch_size // world_size
        assert share * world_size == self.batch_size, "the batch divides over the ranks"
        starts = self.starts(step)[rank * share : (rank + 1) * share]
        windows = np.stack([self.source.read(int(start), self.block_size + 1) for start in starts]).astype(np.int64)
        windows = torch.from_numpy(windows)  # (share, block_size + 1)
        return windows[:, :-1], windows[:, 1:]

    def epoch(self, step: int) -> float:
        """How often the text has been seen after `step` updates."""
        return step * self.batch_size * self.stride / (self.n_windows * self.stride)

    def _window_starts(self, step: int) -> np.ndarray:
        drawn = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(drawn, self.n_windows)
        windows = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            windows[here] = _shuffled(self.n_windows, self.seed, int(epoch))[places[here]]
        return windows * self.stride

    def _offset_starts(self, step: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        return generator.integers(0, len(self.source) - self.block_size, self.batch_size)


def count_windows(tokens: int, block_size: int, stride: int) -> int:
    """Windows that start at multiples of stride and still have a token after them."""
    return max(0, -(-(tokens - block_size) // stride))


@lru_cache(maxsize=2)  # a batch can span two epochs
def _shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
