"""Memory of a process in training, computed from the configuration: with ddp, fsdp or alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from tokenloom.compute.hardware import Hardware
from tokenloom.compute.sharded_tensors import divided_rows
from tokenloom.config import Config, TrainConfig
from tokenloom.model.activations import head_bytes, kept_bytes
from tokenloom.training.batch_shares import BatchShares
from tokenloom.training.muon import update_bytes
from tokenloom.training.tensors import VALUE_BYTES, RunTensors, Shape


@dataclass(frozen=True)
class Memory:
    """Bytes that a process needs on its device while it trains, in the process with the largest part.

    Weights, gradients and optimizer state are those that are allocated. The others are estimates for training that is
    not compiled.
    """

    weights: int
    gradients: int
    optimizer_state: int
    gathered: int
    """Whole weights of two blocks and of what is outside the blocks, and gradients that are not divided yet (fsdp)."""
    converted: int
    """Copies of weights in the precision of the matrix products, which autocast keeps for the backward pass."""
    activations: int
    """What a micro-batch keeps for the backward pass."""
    activations_recomputed: int
    """The same with activation checkpointing."""
    output_head: int
    """Logits of a chunk, and gradients of the output head."""
    update: int
    """Temporary tensors of the update of the weights, after the activations are freed."""
    recomputes: bool
    """Whether activation checkpointing is configured."""

    @property
    def held(self) -> int:
        """What is allocated from the first step on."""
        return self.weights + self.gradients + self.optimizer_state

    @property
    def total(self) -> int:
        """The peak, as configured."""
        return self._peak(self.activations_recomputed if self.recomputes else self.activations)

    @property
    def total_recomputed(self) -> int:
        """The peak with activation checkpointing."""
        return self._peak(self.activations_recomputed)

    def _peak(self, activations: int) -> int:
        passes = self.gathered + self.converted + activations + self.output_head
        return self.held + max(passes, self.update)


def process_memory(config: Config, tensors: RunTensors, shares: BatchShares, parts: int, hardware: Hardware) -> Memory:
    """The memory of each of the processes that divide a batch into `shares`, and a copy of the model into `parts`."""
    held = _bytes(_padded(shape, parts) for shape in tensors.parameters)
    size, sequences = hardware.dtype.itemsize, shares.micro_batch
    muon = [
        update_bytes(count, rows, columns, hardware.muon_dtype.itemsize, parts)
        for (rows, columns), count in tensors.matrices.items()
    ]
    return Memory(
        weights=held,
        gradients=held,
        optimizer_state=state_bytes(tensors, parts),
        gathered=_gathered_bytes(tensors, parts, shares.accumulation) if parts > 1 else 0,
        converted=size * tensors.products if size < VALUE_BYTES else 0,
        activations=kept_bytes(config.model, sequences, hardware),
        activations_recomputed=kept_bytes(config.model, sequences, hardware, recomputed=True),
        output_head=head_bytes(config.model, sequences, hardware),
        update=max(muon, default=0),
        recomputes=config.train.activation_checkpointing,
    )


def parts_of(train: TrainConfig, processes: int) -> int:
    """The number of processes that each copy of the model is divided among: 1 unless fsdp is configured."""
    return processes // train.replicas if train.strategy == "fsdp" else 1


def state_bytes(tensors: RunTensors, parts: int = 1, part: int = 0) -> int:
    """Bytes of a part of the optimizer state; the first one has the most rows of every tensor."""
    return _bytes(
        (divided_rows(shape[0], parts)[part], *shape[1:]) if shape else shape for shape in tensors.optimizer.values()
    )


def gathered_values(group: Iterable[Shape], parts: int) -> int:
    """Values of a group of parameters that fsdp gathers: with its padding to equal parts."""
    return parts * sum(prod(_padded(shape, parts)) for shape in group)


def _gathered_bytes(tensors: RunTensors, parts: int, accumulation: int) -> int:
    """Of fsdp: what it gathers in advance, and the gradients before they are summed and divided.

    They are divided after the last micro-batch of a step; until then, those of all blocks are whole.
    """
    block = max(gathered_values(group, parts) for group in tensors.blocks)
    outside = gathered_values(tensors.outside, parts)
    gradients = sum(map(prod, tensors.parameters)) + block if accumulation > 1 else outside + 2 * block
    return VALUE_BYTES * (outside + 2 * block + gradients)


def _padded(shape: Shape, parts: int) -> Shape:
    """A part as it is allocated: all parts have as many rows as the first one."""
    return (-(-shape[0] // parts), *shape[1:])


def _bytes(shapes: Iterable[Shape]) -> int:
    return VALUE_BYTES * sum(map(prod, shapes))
