"""The interface through which tokens are read by position."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class TokenReader(Protocol):
    """A sequence of tokens that may be larger than memory, such as a split of token shards."""

    def __len__(self) -> int: ...
    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens `start` to `start + count - 1`, (count,) of an integer type."""
        ...
