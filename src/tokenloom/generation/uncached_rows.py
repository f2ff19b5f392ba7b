"""The rows of a batch without a key-value cache: every token is computed again whenever a row is continued."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tokenloom.model.language_model import LanguageModel


class UncachedRows:
    """The interface of `CacheRows`, without a cache."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._tokens: dict[int, list[int]] = {}

    def clear(self, row: int) -> None:
        """Empty a row."""
        self._tokens[row] = []

    erase = clear

    def append(self, row: int, tokens: Sequence[int]) -> Tensor:
        """Append tokens to one row; returns their hidden states (1, T, C)."""
        self._tokens[row] += tokens
        return self._model.hidden(torch.tensor([self._tokens[row]], device=self._device))[:, -len(tokens) :]

    def copy(self, source: int, row: int) -> None:
        """Overwrite a row with the tokens of another."""
        self._tokens[row] = list(self._tokens[source])

    def remove(self, row: int, last: int) -> None:
        """Move row `last`, the last in use, to the place of a row that is not needed any more."""
        self._tokens[row] = self._tokens.pop(last)

    def next_logits(self, tokens: Sequence[int]) -> Tensor:
        """Append a token (n,) to each of the first n rows; returns the logits (n, V) of the token after it."""
        for row, token in enumerate(tokens):
            self._tokens[row].append(token)
        lengths = [len(self._tokens[row]) for row in range(len(tokens))]
        ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
        for row, length in enumerate(lengths):
            ids[row, :length] = self._tokens[row]  # padded on the right, where causal attention does not reach
        logits = self._model(torch.as_tensor(ids, device=self._device))  # (n, T, V)
        return logits[range(len(lengths)), [length - 1 for length in lengths]]
