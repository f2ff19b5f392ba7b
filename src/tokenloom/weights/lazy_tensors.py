"""Weights that lie in files: known by name and shape, read piece by piece.

A model is loaded by copying small pieces of each tensor into place, transposed and converted on the way, so that
loading needs little more memory than the model itself, whatever the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.model import Model, build

PIECE_BYTES = 1 << 24

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class LazyTensor(Protocol):
    """A tensor whose shape is known and whose rows are read when asked for; a `torch.Tensor` is one."""

    @property
    def shape(self) -> Sequence[int]: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


@dataclass(frozen=True)
class Transposed:
    """A stored matrix, to be read as its transpose."""

    stored: LazyTensor

    @property
    def shape(self) -> Sequence[int]:
        return tuple(reversed(self.stored.shape))


LazyOrTransposed = LazyTensor | Transposed


@dataclass(frozen=True)
class LazyModel:
    """A model at rest: its configuration, its tensors under our names, and where they lie, for errors."""

    config: ModelConfig
    tensors: Mapping[str, LazyOrTransposed]
    where: str

    def read(self, dtype: torch.dtype = torch.float32) -> Model:
        """The model on the CPU, in evaluation mode.

        Raises `CheckpointError` naming the first tensor that is missing, unknown, misshapen or unreadable.
        """
        with torch.device("meta"):
            model = build(self.config)
        expected = model.state_dict()
        if self.config.tie_embeddings:
            expected.pop("lm_head.weight")
        self._refuse_unless_fitting({name: tuple(tensor.shape) for name, tensor in expected.items()})
        state = {name: torch.empty(tensor.shape, dtype=dtype) for name, tensor in expected.items()}
        for name, target in state.items():
            try:
                _copy(target, self.tensors[name])
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"{self.where}: tensor {name} cannot be read: {error}. Use another copy."
                ) from None
        if self.config.tie_embeddings:
            state["lm_head.weight"] = state["wte.weight"]
        model.load_state_dict(state, assign=True)
        if self.config.tie_embeddings:  # assignment has made two parameters of one tensor
            model.lm_head.weight = model.wte.weight
        return model.requires_grad_(True).eval()

    def _refuse_unless_fitting(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        for name in sorted(expected.keys() ^ self.tensors.keys()):
            word = "lacks" if name in expected else "has an unknown"
            raise CheckpointError(f"{self.where} {word} tensor {name}. Its config.json belongs to other weights.")
        for name, shape in expected.items():
            if tuple(self.tensors[name].shape) != shape:
                raise CheckpointError(
                    f"{self.where}: tensor {name} is {tuple(self.tensors[name].shape)}, config.json says {shape}. "
                    "Use the config.json that came with the weights."
                )


def lazy_safetensors(folder: Path) -> dict[str, LazyTensor]:
    """The tensors of model.safetensors, or of the several files that model.safetensors.index.json names.

    Raises `WeightsError` for a file that is missing or damaged.
    """
    files = files_of_index(folder / INDEX) if (folder / INDEX).is_file() else [folder / WEIGHTS]
    return {name: tensor for file in files for name, tensor in _tensors_of(file)}


@dataclass(frozen=True)
class _InSafetensors:
    file: Path
    name: str
    shape: Sequence[int]

    def __getitem__(self, rows: slice, /) -> Tensor:
        # Opened anew for each piece: an open file keeps every page that was read mapped, as if it were our memory.
        with safe_open(self.file, framework="pt") as opened:
            return opened.get_slice(self.name)[rows] if self.shape else opened.get_tensor(self.name)


def _tensors_of(file: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping, though it looks like one
                yield name, _InSafetensors(file, name, tuple(opened.get_slice(name).get_shape()))
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing. Fetch all files of the model again.") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} cannot be read: {error}. Use another copy.") from None


def files_of_index(index: Path) -> list[Path]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{index} is not an index of weights. Fetch it again.") from None
    for name in names:
        if Path(name).name != name:  # an index from elsewhere must not lead out of its folder
            raise WeightsError(f"{index} names {name!r}, which is not a file beside it. Fetch it again.")
    return [index.parent / name for name in names]


def _copy(target: Tensor, stored: LazyOrTransposed) -> None:
    if isinstance(stored, Transposed):
        target, stored = target.T, stored.stored
    if target.ndim == 0:
        target.copy_(stored[:])
        return
    row_bytes = 4 * max(1, target[0].numel()) if len(target) else 1
    rows = max(1, PIECE_BYTES // row_bytes)
    for start in range(0, len(target), rows):
        target[start : start + rows].copy_(stored[start : start + rows])
