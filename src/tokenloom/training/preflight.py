"""Checks before training: whether there is enough text, and the size of the run."""

from __future__ import annotations

from dataclasses import dataclass

from tokenloom.compute.hardware import Hardware
from tokenloom.config import Config
from tokenloom.data.batches import count_windows
from tokenloom.data.shards import Shards
from tokenloom.errors import TrainingError
from tokenloom.model.flops import count_parameters, training_flops_per_token
from tokenloom.training.batch_shares import batch_shares
from tokenloom.training.evaluation import sampling_params
from tokenloom.training.memory import parts_of, process_memory
from tokenloom.training.tensors import run_tensors

FP32_ON_A_CPU = Hardware("cpu", "fp32", fast_bf16=False)


@dataclass(frozen=True)
class Estimate:
    """The size of a run, before it starts."""

    parameters: int
    flops_per_token: float
    windows: int
    validation_windows: int
    memory_bytes: int
    """Of each process."""


def preflight(config: Config, shards: Shards, world_size: int = 1, hardware: Hardware = FP32_ON_A_CPU) -> Estimate:
    """The size of the run; raises `TrainingError`, naming settings that work, for too little text or an unequal batch.

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
    shares = batch_shares(config.train, world_size, windows)
    parts = parts_of(config.train, world_size)
    return Estimate(
        parameters=count_parameters(config.model),
        flops_per_token=training_flops_per_token(config.model),
        windows=windows,
        validation_windows=validation_windows,
        memory_bytes=process_memory(config, run_tensors(config), shares, parts, hardware).total,
    )


def _suggested_block_size(n_train: int, n_val: int) -> int:
    """A context length at which both texts have several windows."""
    smaller = min(n_train, n_val) if n_val > 1 else n_train
    return max(1, min(n_train // 4, (smaller - 1) // 2))
