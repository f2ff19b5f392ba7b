"""The strategy of a run in several processes, and the weights and optimizer state with which they start."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tokenloom.compute.hardware import hardware_of
from tokenloom.compute.parallel import World, processes_on_machine
from tokenloom.compute.runtime import Runtime, available_memory
from tokenloom.compute.sharded_tensors import described_by_main
from tokenloom.config import Config
from tokenloom.data.shards import Shards
from tokenloom.errors import UsageError
from tokenloom.model import GPT, build
from tokenloom.training.init_from import build_initial_model, initial_optimizer_state
from tokenloom.training.preflight import preflight
from tokenloom.weights.checkpoint import Checkpoint
from tokenloom.weights.lazy_tensors import uninitialized


def with_strategy(config: Config, shards: Shards, runtime: Runtime, world: World) -> Config:
    """The configuration with ddp or fsdp in place of auto, the same in every process; unchanged for one process.

    auto is ddp, unless there are several replicas or some process has too little memory for the whole model. Raises
    `UsageError` for settings that fsdp does not support, and `TrainingError` as `preflight` does.
    """
    refuse_uneven_replicas(config.train.replicas, world.world_size)
    if world.world_size == 1:
        return config
    if config.train.strategy == "auto" and config.train.replicas > 1:
        config = config.with_values(train={"strategy": "fsdp"})
    if config.train.strategy == "auto":
        needed = preflight(config, shards, world.world_size, hardware_of(runtime)).memory_bytes
        (too_small,) = world.sum([float(needed > memory_of_process(runtime))])
        config = config.with_values(train={"strategy": "fsdp" if too_small else "ddp"})
    if config.train.strategy == "fsdp":
        refuse_fp16(runtime.precision)
        if config.train.compile is None:  # its gain was not measured
            config = config.with_values(train={"compile": False})
    return config


def refuse_fp16(precision: str) -> None:
    """Raise `UsageError` for a precision of matrix products that fsdp does not support."""
    if precision == "fp16":
        raise UsageError("--strategy fsdp does not support fp16. Use --train.precision bf16 or fp32.")


def refuse_uneven_replicas(replicas: int, processes: int) -> None:
    """Raise `UsageError` unless the processes can divide so many models among themselves."""
    fitting = [1, *(count for count in range(2, processes // 2 + 1) if processes % count == 0)]
    if replicas not in fitting:
        advice = f"--train.replicas {' or '.join(map(str, fitting[-2:]))}{' --strategy auto' if processes == 1 else ''}"
        raise UsageError(
            f"--train.replicas {replicas} needs a multiple of {replicas} processes, at least {2 * replicas}, and got "
            f"{processes}. Use {advice}."
        )


def memory_of_process(runtime: Runtime) -> int:
    """Bytes of free memory for this process: each has its own GPU, but those on CPUs share their machine's memory."""
    available = available_memory(runtime.device)
    return available // processes_on_machine() if runtime.device.type == "cpu" else available


def starting_model(config: Config, checkpoint: Checkpoint | None, world: World) -> GPT:
    """The model of a checkpoint, or a new one, on the CPU. With fsdp only rank 0 has the weights."""
    if not _has_values(config, world):
        return uninitialized(config.model)
    if checkpoint is not None:
        return checkpoint.model()
    if config.train.init_from:
        return build_initial_model(config).train()
    return build(config.model, torch.Generator().manual_seed(config.train.seed))


def starting_optimizer_state(config: Config, checkpoint: Checkpoint | None, world: World) -> Mapping[str, Tensor]:
    """The optimizer state of a checkpoint or of `train.init_from`. With fsdp only rank 0 has the values."""
    read: Callable[[], Mapping[str, Tensor]]
    if checkpoint is not None:
        read = checkpoint.optimizer_tensors
    elif config.train.init_optimizer:
        read = lambda: initial_optimizer_state(config)  # noqa: E731 - the other one is a method
    else:
        return {}
    tensors = read() if _has_values(config, world) else None
    return described_by_main(tensors, world) if config.train.strategy == "fsdp" else tensors or {}


def _has_values(config: Config, world: World) -> bool:
    """Whether this process reads the weights: it need not if it gets its part of them from rank 0."""
    return world.is_main or config.train.strategy != "fsdp"
