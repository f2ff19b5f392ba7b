"""The files of a checkpoint and their sizes, before there is one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch

from tokenloom.compute.sharded_tensors import balanced_owners
from tokenloom.config import ModelConfig
from tokenloom.weights.folder import METADATA, folder_content

Shapes = Mapping[str, Sequence[int]]
Owned = tuple[str, Sequence[int], int]
"""The name and shape of a tensor, and the process that writes it."""
VALUE_BYTES = 4  # checkpoints are in fp32
# config.json, tokenizer.json, tokenizer_config.json, state.json and MANIFEST.json.
OTHER_FILES = 5
INDEXES = 2


@dataclass(frozen=True)
class CheckpointSize:
    """Sizes in bytes, without the JSON files, which have a few megabytes at most."""

    weights: int
    """Of the files with weights."""
    optimizer: int
    """Of the files with optimizer state."""
    largest_share: int
    """What one process writes, at most."""
    shards: int
    """Files that the weights are divided into, and as many with optimizer state."""
    without_tensors: int
    """Shards that contain no tensor, because there are more processes than tensors."""
    files: int
    """All files."""

    @property
    def total(self) -> int:
        return self.weights + self.optimizer


def checkpoint_size(config: ModelConfig, weights: Shapes, optimizer: Shapes, writers: int) -> CheckpointSize:
    """The size of a checkpoint of these tensors, by name, of which each of `writers` processes writes some.

    The `weights` have the names of the model; they are saved under those of Hugging Face.
    """
    owners = _owners(weights, writers)
    saved = _divided(_saved_tensors(config, weights, owners), writers)
    owners = _owners(optimizer, writers)
    states = _divided([(name, shape, owners[name]) for name, shape in optimizer.items()], writers)
    sizes = [[safetensors_bytes(share, METADATA) for share in saved], [safetensors_bytes(share) for share in states]]
    return CheckpointSize(
        weights=sum(sizes[0]),
        optimizer=sum(sizes[1]),
        largest_share=max(map(sum, zip(*sizes, strict=True))),
        shards=writers,
        without_tensors=sum(not share for share in (*saved, *states)),
        files=2 * writers + OTHER_FILES + (INDEXES if writers > 1 else 0),
    )


def safetensors_bytes(tensors: Shapes, metadata: Mapping[str, str] | None = None) -> int:
    """The size of a safetensors file of fp32 tensors: 8 bytes, a header of JSON, and the values."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in sorted(tensors.items()):
        start, end = end, end + VALUE_BYTES * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-text // 8) * 8 + end


def _owners(tensors: Shapes, writers: int) -> dict[str, int]:
    """The process that writes each tensor, as `whole_share` divides them."""
    sizes = (VALUE_BYTES * prod(shape) for shape in tensors.values())
    return dict(zip(tensors, balanced_owners(sizes, writers), strict=True))


def _saved_tensors(config: ModelConfig, weights: Shapes, owners: Mapping[str, int]) -> list[Owned]:
    """The weights under the names of their file, with the process that writes each."""
    values = {name: torch.zeros(()).expand(tuple(shape)) for name, shape in weights.items()}  # one value in memory each
    owner_of = {tensor.untyped_storage().data_ptr(): owners[name] for name, tensor in values.items()}
    _, saved = folder_content(config, values, eot_id=0)
    # Tensors that only the format has, such as biases of zeros, are made from the embedding.
    other = owners["wte.weight"]
    return [
        (name, tuple(tensor.shape), owner_of.get(tensor.untyped_storage().data_ptr(), other))
        for name, tensor in saved.items()
    ]


def _divided(tensors: Iterable[Owned], writers: int) -> list[dict[str, Sequence[int]]]:
    shares: list[dict[str, Sequence[int]]] = [{} for _ in range(writers)]
    for name, shape, owner in tensors:
        shares[owner][name] = shape
    return shares
