"""Random access to a sequence of token ids: the protocol, and its in-memory implementation."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike


class TokenReader(Protocol):
    """A sequence of token ids that may be larger than memory."""

    def __len__(self) -> int: ...

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens start … start + count - 1, (count,) of an unsigned integer type.

        Raises `IndexError` for tokens outside the sequence.
        """
        ...


class TokenArray:
    """Token ids (n,) in memory."""

    def __init__(self, ids: ArrayLike) -> None:
        self.ids = np.asarray(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> np.ndarray:
        """Tokens start … start + count - 1, a view; raises `IndexError` for tokens outside the array."""
        if start < 0 or count < 0 or start + count > len(self.ids):
            raise IndexError(f"tokens {start} to {start + count} of an array of {len(self.ids)}")
        return self.ids[start : start + count]
