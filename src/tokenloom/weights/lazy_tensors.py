"""Weights that are not loaded yet: names and shapes first, values read slice by slice.

A model is loaded by copying slices of each tensor into place, transposed and converted on the way, so loading needs
little more memory than the model itself, whatever the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.errors import CheckpointError
from tokenloom.model import GPT, build

SLICE_BYTES = 1 << 24


class LazyTensor(Protocol):
    """A tensor of known shape whose rows are read on demand; a `torch.Tensor` is one."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class Transposed:
    """A stored matrix that is the transpose of the model's."""

    stored: LazyTensor

    @property
    def shape(self) -> Sequence[int]:
        return tuple(reversed(self.stored.shape))


@dataclass(frozen=True)
class Zeros:
    """A tensor of zeros, in place of one that a format leaves out."""

    shape: Sequence[int]

    def __getitem__(self, rows: slice, /) -> Tensor:
        return torch.zeros(self.shape)[rows]


StoredTensor = LazyTensor | Transposed


def is_tied(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the head shares the values of the embedding, stored once or twice."""
    head, embedding = tensors.get("lm_head.weight"), tensors["wte.weight"]
    if head is None:
        return True
    assert not isinstance(head, Transposed)
    assert not isinstance(embedding, Transposed)
    if tuple(head.shape) != tuple(embedding.shape):
        return False
    slices = _row_slices(embedding.shape)
    return all(torch.equal(head[rows], embedding[rows]) for rows in slices)


@dataclass(frozen=True)
class LazyModel:
    """A model that is not loaded yet: its configuration and its tensors by the names of `Model.state_dict`."""

    config: ModelConfig
    tensors: Mapping[str, StoredTensor]
    source: str
    """The file or folder, for error messages."""

    def read(self, dtype: torch.dtype = torch.float32) -> GPT:
        """The model on the CPU, in evaluation mode.

        Raises `CheckpointError` naming the first tensor that is missing, unexpected, unreadable or of another shape.
        """
        model = uninitialized(self.config, dtype)
        state = model.state_dict()
        if self.config.tie_embeddings:
            state.pop("lm_head.weight")
        self._check_shapes({name: tuple(tensor.shape) for name, tensor in state.items()})
        for name, target in state.items():
            try:
                _copy(target, self.tensors[name])
            except (OSError, SafetensorError, TypeError) as error:
                raise CheckpointError(
                    f"{self.source}: tensor {name} cannot be read: {error}. Use another copy."
                ) from None
        return model.eval()

    def _check_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        for name in sorted(expected.keys() ^ self.tensors.keys()):
            problem = "lacks" if name in expected else "has an unexpected"
            raise CheckpointError(
                f"{self.source} {problem} tensor {name}. Its configuration belongs to other weights, or it is not a "
                "GPT-2 language model."
            )
        for name, shape in expected.items():
            stored = tuple(self.tensors[name].shape)
            if stored != shape:
                raise CheckpointError(
                    f"{self.source}: tensor {name} has shape {stored}, but its configuration gives {shape}. "
                    "Use the configuration that came with the weights."
                )


def uninitialized(config: ModelConfig, dtype: torch.dtype = torch.float32) -> GPT:
    """A model on the CPU whose weights have no values yet; memory that is not written takes no space."""
    with torch.device("meta"):
        model = build(config)
    state = {name: torch.empty(tensor.shape, dtype=dtype) for name, tensor in model.state_dict().items()}
    if config.tie_embeddings:
        state["lm_head.weight"] = state["wte.weight"]
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:  # assigning creates two parameters that share one tensor
        model.lm_head.weight = model.wte.weight
    return model.requires_grad_(True)


def _copy(target: Tensor, stored: StoredTensor) -> None:
    if isinstance(stored, Transposed):
        target, stored = target.T, stored.stored
    for rows in _row_slices(target.shape):
        values = stored[rows]
        if not values.is_floating_point():
            raise TypeError(f"it contains {values.dtype}, not floating-point numbers")
        target[rows].copy_(values)
        if target.dtype == torch.float16 and bool((values.isfinite() & ~target[rows].isfinite()).any()):
            raise TypeError("it has values that are too large for fp16")


def _row_slices(shape: Sequence[int]) -> Iterator[slice]:
    """Slices of about `SLICE_BYTES` that cover a tensor; one of everything for a scalar."""
    if not shape:
        return iter([slice(None)])
    rows = max(1, SLICE_BYTES // max(1, 4 * prod(shape[1:])))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))
