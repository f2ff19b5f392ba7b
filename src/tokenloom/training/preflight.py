"""Checks before training: whether there is enough text, and the size of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenloom.config import Config
from tokenloom.data.batches import count_windows
from tokenloom.data.shards import Shards
from tokenloom.errors import TrainingError
from tokenloom.model.flops import count_parameters, training_flops_per_token
from tokenloom.training.evaluation import sampling_params

# fp32 weights, gradients and the two moments of AdamW.
BYTES_PER_PARAMETER = 16
# With fsdp, which divides these among the processes: gathered gradients, until the last micro-batch of a step.
GATHERED_BYTES_PER_PARAMETER = 4
# Values that a block keeps for the backward pass, per token and unit of n_embd (measured on both families).
ACTIVATIONS_PER_BLOCK = 34


@dataclass(frozen=True)
class Estimate:
    """The size of a run, before it starts."""

    parameters: int
    flops_per_token: float
    windows: int
    validation_windows: int
    memory_bytes: int


def preflight(config: Config, shards: Shards, world_size: int = 1) -> Estimate:
    """The size of the run; raises `TrainingError`, naming settings that work, if there is not enough text.

    Raises `UsageError` for sampling parameters with which the first sample would fail.
    """
    sampling_params(config.sample)
    block, batch = config.model.block_size, config.train.batch_size
    stride = config.data.stride or block
    n_train, n_val = shards.train.n_tokens, shards.val.n_tokens
    windows = count_windows(n_train, block, stride)
    if windows == 0:
        raise TrainingError(
            f"the context of {block:,} tokens is longer than the training text of {n_train:,} tokens. "
            f"Use more text, or --model.block-size {_suggested_block_size(n_train, n_val)}.",
            topic="short text",
        )
    if windows < batch:
        raise TrainingError(
            f"the training text has {windows:,} windows of {block:,} tokens, fewer than a batch of {batch:,}. "
            f"Use more text, --train.batch-size {windows}, or --model.block-size {max(1, n_train // (batch + 1))}.",
            topic="short text",
        )
    validation_windows = count_windows(n_val, block, block)
    if config.data.val_fraction > 0 and validation_windows == 0:
        raise TrainingError(
            f"the validation text has {n_val:,} tokens, too few for one window of {block:,}. "
            f"Use --model.block-size {_suggested_block_size(n_train, n_val)}, a larger --data.val-fraction, "
            "or --data.val-fraction 0 to train without validation.",
            topic="short text",
        )
    if batch % world_size:
        raise TrainingError(
            f"train.batch_size {batch} is not a multiple of the {world_size} processes. Use "
            f"{_fitting_batches(batch, math.lcm(world_size, config.train.micro_batch_size or 1), windows)}"
            f"{_fitting_processes(batch, world_size)}."
        )
    parameters = count_parameters(config.model)
    return Estimate(
        parameters=parameters,
        flops_per_token=training_flops_per_token(config.model),
        windows=windows,
        validation_windows=validation_windows,
        memory_bytes=_memory_bytes(config, parameters, world_size),
    )


def _fitting_batches(batch: int, factor: int, most: int) -> str:
    """The flag with the multiples of `factor` next to `batch`, of at most `most` windows; empty if there are none."""
    lower = batch // factor * factor
    sizes = [str(size) for size in (lower, lower + factor) if 0 < size <= most]
    return f"--train.batch-size {' or '.join(sizes)}, or " if sizes else ""


def _fitting_processes(batch: int, most: int) -> str:
    """The largest numbers of processes below `most` that can share the batch."""
    counts = [count for count in range(1, most) if batch % count == 0][-2:]
    return f"{' or '.join(map(str, counts))} {'process' if counts == [1] else 'processes'}"


def _suggested_block_size(n_train: int, n_val: int) -> int:
    """A context length at which both texts have several windows."""
    smaller = min(n_train, n_val) if n_val > 1 else n_train
    return max(1, min(n_train // 4, (smaller - 1) // 2))


def _memory_bytes(config: Config, parameters: int, world_size: int) -> int:
    model, train = config.model, config.train
    sequences = min(train.batch_size // world_size, train.micro_batch_size or train.batch_size)
    tokens = sequences * model.block_size
    blocks = 1 if train.activation_checkpointing else model.n_layer
    activations = tokens * model.n_embd * ACTIVATIONS_PER_BLOCK * blocks
    logits = min(tokens * model.vocabulary, 1 << 24) * 3
    state = parameters * BYTES_PER_PARAMETER
    if train.strategy == "fsdp":
        state = state * train.replicas // world_size + parameters * GATHERED_BYTES_PER_PARAMETER
    return state + 4 * (activations + logits)
