"""The key-value cache of a batch: a row for each sequence, filled and continued in place.

Rows 0 to n - 1 belong to the n running sequences, in any order. Storage is allocated once, so that a sequence joins or
leaves without moving the tokens of others, but for those of the last row, which moves to the place of one that left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenloom.model.language_model import LanguageModel


class CacheRows:
    """Rows of a key-value cache for at most `max_rows` sequences, numbered from 0.

    On a CPU memory is taken up by the tokens that are stored, so all rows are allocated with the first. On other
    devices, their number doubles when they do not suffice.
    """

    def __init__(self, model: LanguageModel, max_rows: int) -> None:
        self._model = model
        self._max_rows = max_rows
        self._device = next(model.parameters()).device
        self._cache = model.new_cache(max_rows if self._device.type == "cpu" else 1)

    def length(self, row: int) -> int:
        """Number of tokens in a row."""
        return int(self._cache.lengths[row])

    def clear(self, row: int) -> None:
        """Empty a row; required before the first `append` of a sequence."""
        self._allocate(row)
        self._cache.lengths[row] = 0

    def append(self, row: int, tokens: Sequence[int]) -> Tensor:
        """Append tokens to one row, such as a prompt or a part of it; returns their hidden states (1, T, C)."""
        return self._model.hidden(torch.tensor([tokens], device=self._device), self._cache.row(row))

    def copy(self, source: int, row: int) -> None:
        """Overwrite a row with the tokens of another."""
        self._allocate(max(source, row))
        self._cache.copy_row(row, self._cache, source)

    def remove(self, row: int, last: int) -> None:
        """Move row `last`, the last in use, to the place of a row that is not needed any more."""
        if row != last:
            self.copy(last, row)

    def erase(self, row: int) -> None:
        """Empty a row that holds NaN, which would otherwise reach the next sequence in it even through a mask."""
        self._cache.erase_row(row)

    def next_logits(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """Append a token (n,) to each of the first n rows; returns the logits (n, V) of the token after it."""
        ids = torch.as_tensor(tokens, device=self._device)[:, None]  # (n, 1)
        return self._model(ids, self._cache)[:, -1]

    def _allocate(self, row: int) -> None:
        rows = len(self._cache.lengths)
        if row < rows:
            return
        larger = self._model.new_cache(min(self._max_rows, max(2 * rows, row + 1)))
        for kept in range(rows):
            larger.copy_row(kept, self._cache, kept)
        self._cache = larger
