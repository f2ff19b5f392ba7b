"""The cache of keys and values of earlier tokens: rows of different lengths, each appended to in place."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from tokenloom.config import ModelConfig

# B rows of a forward pass, T new tokens, S tokens attended to, G key and value heads, D size of a head.


class KVCache:
    """Keys and values of up to `block_size` tokens in each row; rows may have different lengths.

    A forward pass over ids (B, T) appends T tokens to each of the first B rows, at the row's own positions: it calls
    `next_positions`, `append` in each layer, and `advance`. Storage is allocated once: a tensor (rows, G, block_size,
    D) for the keys and one for the values of each layer. On a CPU they are fp32 for any `dtype`, because attention with
    a single query is several times slower in bf16 there. `lengths` (rows,) is an int64 array in host memory.
    """

    def __init__(self, config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        dtype = torch.float32 if device.type == "cpu" and dtype.itemsize < 4 else dtype
        shape = (rows, config.kv_heads, config.block_size, config.head_size)
        self.keys = [_zeros(shape, device, dtype) for _ in range(config.n_layer)]
        self.values = [_zeros(shape, device, dtype) for _ in range(config.n_layer)]
        self.lengths = np.zeros(rows, dtype=np.int64)
        self._slots: Tensor | None = None  # of the current forward pass, as are the next three
        self._start = 0
        self._end = 0
        self._mask: Tensor | None = None

    @property
    def block_size(self) -> int:
        return self.keys[0].shape[2]

    @property
    def dtype(self) -> torch.dtype:
        return self.keys[0].dtype

    @property
    def device(self) -> torch.device:
        return self.keys[0].device

    def row(self, row: int) -> KVCache:
        """A view of one row: tokens appended to it are appended to this cache."""
        view = object.__new__(KVCache)
        view.keys = [keys[row : row + 1] for keys in self.keys]
        view.values = [values[row : row + 1] for values in self.values]
        view.lengths = self.lengths[row : row + 1]
        return view

    def next_positions(self, B: int, T: int) -> Tensor:
        """Positions (B, T) of the next T tokens of the first B rows. Everything that layers share is computed here."""
        lengths = self.lengths[:B]
        self._start, self._end = int(lengths.min()), int(lengths.max()) + T
        assert self._end <= self.block_size, "the caller slides the window before the cache is full"
        positions = lengths[:, None] + np.arange(T)  # (B, T)
        same_length = self._start + T == self._end
        self._slots = self._mask = None
        if not same_length:
            G = self.keys[0].shape[1]
            heads = np.arange(B * G).reshape(B, G, 1) * self.block_size
            self._slots = torch.as_tensor(heads + positions[:, None], device=self.device).flatten()  # (B·G·T,)
        if not same_length or (self._start > 0 and T > 1):
            visible = np.arange(self._end) <= positions[:, None, :, None]  # (B, 1, T, S)
            self._mask = torch.as_tensor(visible, device=self.device)
        return torch.as_tensor(positions, device=self.device)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store k, v (B, G, T, D) of the next tokens; return all keys and values (B, G, S, D) and the attention mask.

        The mask (B, 1, T, S) is true where a query may attend to a key. It is None if all rows have the same length and
        either were empty, so that the plain causal mask applies, or receive a single token, which attends to all.
        """
        assert self._end > 0, "next_positions starts a forward pass"
        B, _, T, D = k.shape
        keys, values = (y[layer].narrow(0, 0, B) for y in (self.keys, self.values))
        if self._slots is None:  # all rows have the same length
            keys.narrow(2, self._start, T).copy_(k)
            values.narrow(2, self._start, T).copy_(v)
        else:
            keys.view(-1, D).index_copy_(0, self._slots, k.to(keys.dtype).reshape(-1, D))
            values.view(-1, D).index_copy_(0, self._slots, v.to(values.dtype).reshape(-1, D))
        keys, values = keys.narrow(2, 0, self._end), values.narrow(2, 0, self._end)
        return keys, values, self._mask

    def advance(self, B: int, T: int) -> None:
        """Add T to the lengths of the first B rows, after every layer has stored the keys and values of T tokens."""
        self.lengths[:B] += T
        self._end = 0

    def copy_row(self, row: int, source: KVCache, source_row: int) -> None:
        """Overwrite a row with a row of a cache, which may be this one; only its tokens are copied."""
        length = int(source.lengths[source_row])
        for mine, theirs in zip([*self.keys, *self.values], [*source.keys, *source.values], strict=True):
            mine[row, :, :length] = theirs[source_row, :, :length]
        self.lengths[row] = length

    def erase_row(self, row: int) -> None:
        """Empty a row and set its tokens to zero; setting its length to 0 is enough if they are finite."""
        for stored in [*self.keys, *self.values]:
            stored[row, :, : self.lengths[row]].zero_()
        self.lengths[row] = 0


def _zeros(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros, because a masked slot that held NaN would still give NaN.

    On a CPU the operating system provides memory page by page as tokens are stored: not in huge pages, of which each
    would be cleared whole for its first token.
    """
    if device.type != "cpu" or 0 in shape:
        return torch.zeros(shape, device=device, dtype=dtype)
    size = math.prod(shape) * dtype.itemsize
    if hasattr(mmap, "MAP_PRIVATE"):
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:  # Windows
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(list(shape))
