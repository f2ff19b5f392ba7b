"""The plan of a run in many processes, computed without them: strategy, memory, batch, traffic and checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from tokenloom.compute.hardware import Hardware, planned_hardware
from tokenloom.compute.parallel import refuse_device
from tokenloom.compute.sharded_tensors import divided_rows
from tokenloom.compute.strategies import ONE_PROCESS
from tokenloom.config import Config, DataConfig, Settings
from tokenloom.config_files import read_preset, read_toml
from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.data.tokenizers.load import bpe_vocab_size
from tokenloom.errors import UsageError
from tokenloom.training.automatic import default_settings
from tokenloom.training.batch_shares import BatchShares, batch_shares, batch_unit
from tokenloom.training.init_from import configure_init_from
from tokenloom.training.memory import Memory, process_memory
from tokenloom.training.strategy import refuse_fp16, refuse_uneven_replicas
from tokenloom.training.tensors import VALUE_BYTES, RunTensors, run_tensors
from tokenloom.training.traffic import Traffic, step_traffic
from tokenloom.weights.checkpoint_size import CheckpointSize, checkpoint_size


@dataclass(frozen=True)
class Ranks:
    """The processes of a run."""

    machines: int
    per_machine: int

    @property
    def count(self) -> int:
        return self.machines * self.per_machine


@dataclass(frozen=True)
class ShardSizes:
    """How evenly fsdp divides the weights among the processes, by rows."""

    largest: int
    """Values in the process that has the most."""
    smallest: int
    empty: int
    """Processes without rows of some tensor, because it has fewer rows than there are processes."""
    padding: float
    """What is allocated beyond the weights themselves, as a share of them: all processes allocate as many rows."""


@dataclass(frozen=True)
class Plan:
    """What a run needs in each of its processes, in bytes."""

    ranks: Ranks
    strategy: Literal["ddp", "fsdp"] | None
    """None for a single process."""
    replicas: int
    """Copies of the model: with ddp as many as processes."""
    is_automatic: bool
    """Whether memory decided the strategy."""
    hardware: Hardware
    available: int
    """Memory of the device of each process."""
    ddp_bytes: int
    """The peak with which auto is decided: that of a process with the whole model."""
    parameters: int
    block_size: int
    batch: BatchShares
    chosen_batch: int | None
    """The batch size of the preset, if the processes cannot divide it and another one was planned in its place."""
    memory: Memory
    shards: ShardSizes | None
    """None without fsdp."""
    traffic: Traffic
    checkpoint: CheckpointSize
    kept_checkpoints: int
    """Checkpoints on the disk at once, at most: those that are kept, and the one that is written."""
    samples: int
    """What the first process needs besides its part while it generates samples: with fsdp, the whole model."""

    @property
    def peak(self) -> int:
        """Bytes of the process that needs most. Samples are generated when no activations are kept."""
        return max(self.memory.total, self.memory.held + self.samples)

    @property
    def fits(self) -> bool:
        return self.peak <= self.available

    @property
    def tokens_per_step(self) -> int:
        return self.batch.size * self.block_size

    @property
    def disk(self) -> int:
        """Bytes of all checkpoints, the best one included, which has no optimizer state."""
        return self.kept_checkpoints * self.checkpoint.total + 2 * self.checkpoint.weights

    def to_json(self) -> dict[str, object]:
        """The plan as `tokenloom plan --json` prints it."""
        batch, memory, checkpoint = self.batch, self.memory, self.checkpoint
        return {
            "ranks": self.ranks.count,
            "machines": self.ranks.machines,
            "strategy": self.strategy,
            "replicas": self.replicas,
            "device": self.hardware.device,
            "precision": self.hardware.precision,
            "parameters": self.parameters,
            "memory": {
                **{name: value for name, value in asdict(memory).items() if name != "recomputes"},
                "total": memory.total,
                "total_recomputed": memory.total_recomputed,
                "samples": self.samples,
                "ddp": self.ddp_bytes,
                "available": self.available,
                "peak": self.peak,
                "fits": self.fits,
            },
            "shards": None if self.shards is None else asdict(self.shards),
            "batch": {
                "size": batch.size,
                "per_rank": batch.per_process,
                "micro_batch": batch.micro_batch,
                "accumulation": batch.accumulation,
                "tokens": self.tokens_per_step,
                "multiple_of": batch.multiple_of,
                "sizes": batch.nearest(4),
            },
            "traffic": {**asdict(self.traffic), "total": self.traffic.total},
            "checkpoint": {**asdict(checkpoint), "total": checkpoint.total, "disk": self.disk},
        }


def make_plan(
    ranks: Ranks,
    available: int,
    *,
    preset: str | None = None,
    config: Path | None = None,
    settings: Settings | None = None,
) -> Plan:
    """The plan of a run on devices with `available` bytes of memory each, with the settings that `train` takes.

    Raises `UsageError` for settings that `train` refuses, and `TrainingError` for a batch that cannot be divided.
    """
    resolved, chosen_batch = _planned_config(ranks.count, preset, config, settings)
    train = resolved.train
    hardware = planned_hardware(train.device, train.precision)
    if ranks.count > 1:
        refuse_device(train.device, hardware.device)
    batch, tensors = batch_shares(train, ranks.count), run_tensors(resolved)
    refuse_uneven_replicas(train.replicas, ranks.count)
    whole = process_memory(resolved, tensors, batch, 1, hardware)
    is_automatic = train.strategy == "auto" and ranks.count > 1 and train.replicas == 1
    is_sharded = train.strategy == "fsdp" or train.replicas > 1 or (is_automatic and whole.total > available)
    if is_sharded:
        if ranks.count == 1:
            raise UsageError(ONE_PROCESS)
        refuse_fp16(hardware.precision)
    parts = ranks.count // train.replicas if is_sharded else 1
    memory = process_memory(resolved, tensors, batch, parts, hardware)
    parameters = sum(map(prod, tensors.parameters))
    return Plan(
        ranks=ranks,
        strategy=None if ranks.count == 1 else "fsdp" if is_sharded else "ddp",
        replicas=train.replicas if is_sharded else ranks.count,
        is_automatic=is_automatic,
        hardware=hardware,
        available=available,
        ddp_bytes=whole.total,
        parameters=parameters,
        block_size=resolved.model.block_size,
        batch=batch,
        chosen_batch=chosen_batch,
        memory=memory,
        shards=_shard_sizes(tensors, parts, train.replicas) if is_sharded else None,
        traffic=step_traffic(tensors, batch, parts, hardware, ranks.per_machine),
        checkpoint=checkpoint_size(
            resolved.model, tensors.weights, tensors.optimizer, ranks.count if is_sharded else 1
        ),
        kept_checkpoints=train.keep_checkpoints + 1,
        samples=VALUE_BYTES * parameters if is_sharded and resolved.sample.max_new_tokens else 0,
    )


def _shard_sizes(tensors: RunTensors, parts: int, replicas: int) -> ShardSizes:
    counts = Counter(tensors.parameters)
    rows = {shape: divided_rows(shape[0], parts) for shape in counts}
    values = {shape: count * prod(shape[1:]) for shape, count in counts.items()}  # in a row of all of this shape
    sizes = [sum(rows[shape][part] * values[shape] for shape in counts) for part in range(parts)]
    return ShardSizes(
        largest=max(sizes),
        smallest=min(sizes),
        empty=replicas * (parts - min(sum(map(bool, divided)) for divided in rows.values())),
        padding=parts * sizes[0] / sum(sizes) - 1,
    )


def _planned_config(
    processes: int, preset: str | None, config: Path | None, settings: Settings | None
) -> tuple[Config, int | None]:
    """The configuration as `train` resolves it, and the batch size of a preset that was replaced by one that fits."""
    overrides: list[Settings] = [read_toml(config) if config else {}, settings or {}]
    first = read_preset(preset) if preset else default_settings(overrides)
    resolved = Config.of(first, *overrides)
    if resolved.train.init_from is not None:
        given: Settings = read_preset(preset) if preset else {}
        resolved, _ = configure_init_from(resolved.train.init_from, given, overrides)
    if resolved.model.vocab_size is None:
        resolved = resolved.with_values(model={"vocab_size": _vocabulary(resolved.data)})
    size, unit = resolved.train.batch_size, batch_unit(resolved.train, processes)
    if size % processes == 0 or _is_set(overrides, "train", "batch_size"):
        return resolved, None
    return resolved.with_values(train={"batch_size": -(-size // unit) * unit}), size


def _vocabulary(data: DataConfig) -> int:
    """The size of the vocabulary of a tokenizer that is not trained yet; raises `UsageError` for char."""
    kind = data.tokenizer.partition(":")[0]
    if kind == "char":
        raise UsageError(
            "the number of characters is not known before the text is read. Pass --model.vocab-size, such as 100."
        )
    size = bpe_vocab_size(data.tokenizer) if kind == "bpe" else make_tokenizer(data.tokenizer).vocab_size
    return size + len(data.add_tokens)


def _is_set(layers: Sequence[Mapping[str, Any]], section: str, field: str) -> bool:
    return any(field in layer.get(section, {}) for layer in layers)
