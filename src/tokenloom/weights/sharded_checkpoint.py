"""Checkpoints of a sharded model: each process writes some of the tensors, whole, to a safetensors file.

The files and their index are those that Hugging Face uses for large models, so a checkpoint can be read with any number
of processes, or by other programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tokenloom.compute.agreement import together
from tokenloom.compute.parallel import World
from tokenloom.compute.sharded_tensors import whole_share
from tokenloom.model import GPT
from tokenloom.storage import fsync
from tokenloom.weights.checkpoint import (
    ADVICE,
    OPTIMIZER,
    Checkpoint,
    ManifestEntry,
    SavableTokenizer,
    checkpoint_path,
    complete_checkpoint,
    manifest_entry,
)
from tokenloom.weights.folder import METADATA, folder_content, write_model_config
from tokenloom.weights.output import output_errors, output_folder
from tokenloom.weights.safetensors_files import WEIGHTS, save_tensors, shard_of, write_index


def save_sharded_checkpoint(
    folder: Path,
    step: int,
    model: GPT,
    tokenizer: SavableTokenizer,
    world: World,
    *,
    state: Mapping[str, object],
    optimizer: Mapping[str, Tensor] | None = None,
    kind: str = "step",
) -> Checkpoint:
    """Like `save_checkpoint`, for a model whose tensors are divided among the processes, all of which call this.

    `folder` must be on a disk that all processes share. Each process flushes and hashes the files that it writes; the
    main process writes the manifest. Raises `CheckpointError` in every process if one of them cannot write.
    """
    path = checkpoint_path(folder, step, kind)
    with ExitStack() as output:

        def start() -> Path | None:
            return output.enter_context(output_folder(path, ADVICE)) if world.is_main else None

        target, *_ = together(world, start)
        assert target is not None
        config, weights = _share_of_model(model, tokenizer.eot_id, world)
        shards = {WEIGHTS: together(world, partial(_write_shard, path, target / WEIGHTS, weights, world, METADATA))}
        del weights  # to have one share in memory
        if optimizer is not None:
            moments = whole_share(optimizer, world)
            shards[OPTIMIZER] = together(world, partial(_write_shard, path, target / OPTIMIZER, moments, world))

        def finish() -> None:
            if world.is_main:
                write_model_config(target, config)
                _write_indexes(target, shards)
                hashed = {shard.file: shard.entry for written in shards.values() for shard in written}
                complete_checkpoint(target, step, tokenizer, state, hashed)
            output.close()  # moves the folder to its place

        together(world, finish)
    return Checkpoint(path)


@dataclass(frozen=True)
class _Shard:
    """A file that a process has written."""

    file: str
    tensors: Mapping[str, int]
    """The bytes of each."""
    entry: ManifestEntry


def _share_of_model(model: GPT, eot_id: int, world: World) -> tuple[Mapping[str, object], dict[str, Tensor]]:
    """The content of config.json, and this process's share of the weights under the names of Hugging Face."""
    state_dict = model.state_dict()
    if model.config.tie_embeddings:
        del state_dict["lm_head.weight"]
    share = whole_share(state_dict, world)
    # The format is a function of all tensors; those of other processes have no values here.
    complete = {name: share.get(name, torch.empty(tensor.shape, device="meta")) for name, tensor in state_dict.items()}
    config, tensors = folder_content(model.config, complete, eot_id)
    return config, {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}


def _write_shard(
    path: Path, file: Path, tensors: Mapping[str, Tensor], world: World, metadata: dict[str, str] | None = None
) -> _Shard:
    """Write this process's shard of `file`, a part of the checkpoint `path`, durably."""
    shard = file.with_name(shard_of(file.name, world.rank + 1, world.world_size))
    with output_errors(path, ADVICE):
        save_tensors(shard, tensors, metadata)
        fsync(shard)
        entry = manifest_entry(shard)
    return _Shard(shard.name, {name: tensor.nbytes for name, tensor in tensors.items()}, entry)


def _write_indexes(folder: Path, shards: Mapping[str, Sequence[_Shard]]) -> None:
    for name, written in shards.items():
        write_index(folder, name, {shard.file: shard.tensors for shard in written})
