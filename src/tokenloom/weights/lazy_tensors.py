"""Weights that are not loaded yet: names and shapes first, values read slice by slice.

A model is loaded by copying slices of each tensor into place, transposed and converted on the way, so loading needs
little more memory than the model itself, whatever the format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


StoredTensor = LazyTensor | Transposed


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
        with torch.device("meta"):
            model = build(self.config)
        expected = model.state_dict()
        if self.config.tie_embeddings:
            expected.pop("lm_head.weight")
        self._check_shapes({name: tuple(tensor.shape) for name, tensor in expected.items()})
        state = {name: torch.empty(tensor.shape, dtype=dtype) for name, tensor in expected.items()}
        for name, target in state.items():
            try:
                _copy(target, self.tensors[name])
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"{self.source}: tensor {name} cannot be read: {error}. Use another copy."
                ) from None
        if self.config.tie_embeddings:
            state["lm_head.weight"] = state["wte.weight"]
        model.load_state_dict(state, assign=True)
        if self.config.tie_embeddings:  # assigning creates two parameters that share one tensor
            model.lm_head.weight = model.wte.weight
        return model.requires_grad_(True).eval()

    def _check_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        for name in sorted(expected.keys() ^ self.tensors.keys()):
            problem = "lacks" if name in expected else "has an unexpected"
            raise CheckpointError(f"{self.source} {problem} tensor {name}. Its config.json belongs to other weights.")
        for name, shape in expected.items():
            stored = tuple(self.tensors[name].shape)
            if stored != shape:
                raise CheckpointError(
                    f"{self.source}: tensor {name} has shape {stored}, but config.json gives {shape}. "
                    "Use the config.json that came with the weights."
                )


def _copy(target: Tensor, stored: StoredTensor) -> None:
    if isinstance(stored, Transposed):
        target, stored = target.T, stored.stored
    if target.ndim == 0:
        target.copy_(stored[:])
        return
    row_bytes = 4 * max(1, target[0].numel()) if len(target) else 1
    rows = max(1, SLICE_BYTES // row_bytes)
    for start in range(0, len(target), rows):
        target[start : start + rows].copy_(stored[start : start + rows])
