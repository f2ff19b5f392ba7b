"""What the processes of a run send to each other in a step, computed from the shapes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from tokenloom.compute.hardware import Hardware
from tokenloom.compute.matrix_owners import owned_matrices
from tokenloom.compute.sharded_tensors import divided_rows
from tokenloom.training.batch_shares import BatchShares
from tokenloom.training.memory import gathered_values
from tokenloom.training.tensors import VALUE_BYTES, RunTensors


@dataclass(frozen=True)
class Traffic:
    """Bytes that a process receives in a step, and about as many that it sends.

    The few numbers of a step that are summed besides its gradients are not counted.
    """

    all_gather: int
    """Weights that fsdp gathers: those of each block twice for each micro-batch, the others once."""
    reduce_scatter: int
    """Gradients that fsdp sums, once a step."""
    all_reduce: int
    """Gradients that copies of the model sum, once a step, in a ring: whole with ddp, parts with fsdp."""
    muon_gather: int
    """Rows of the matrices that this process orthogonalizes (fsdp), in the process that receives or sends the most."""
    muon_scatter: int
    """Rows of the orthogonalized matrices (fsdp)."""
    machine: int
    """What a machine receives from the others, at least; 0 with a single machine."""

    @property
    def total(self) -> int:
        return self.all_gather + self.reduce_scatter + self.all_reduce + self.muon_gather + self.muon_scatter


def step_traffic(
    tensors: RunTensors, shares: BatchShares, parts: int, hardware: Hardware, processes_per_machine: int
) -> Traffic:
    """The traffic of a step of processes that divide a batch into `shares`, and a copy of the model into `parts`."""
    copies = shares.processes // parts
    blocks = VALUE_BYTES * sum(gathered_values(group, parts) for group in tensors.blocks)
    model = blocks + VALUE_BYTES * gathered_values(tensors.outside, parts)
    gathered = shares.accumulation * (blocks + model)
    muon = _exchanged(tensors, parts, hardware.muon_dtype.itemsize) if parts > 1 else 0
    received = (parts - 1) / parts  # of what a copy has, by each of its processes
    summed = 2 * (copies - 1) / copies * model / parts  # in a ring of the processes with the same part
    return Traffic(
        all_gather=round(received * gathered),
        reduce_scatter=round(received * model),
        all_reduce=round(summed),
        muon_gather=muon,
        muon_scatter=muon,
        machine=round(_machine_bytes(shares.processes, parts, processes_per_machine, gathered + model, model, muon)),
    )


def _machine_bytes(processes: int, parts: int, on_machine: int, divided: float, model: float, muon: int) -> float:
    """What a machine receives at least: of what its copy `divided`, of the sums of the `model`, and of Muon's matrices.

    A ring enters each machine once. Parts of Muon's matrices go to every process of a copy directly.
    """
    outside = max(0, parts - on_machine)
    direct = 2 * muon * on_machine * outside / max(1, parts - 1)
    copies = processes // parts
    summed = (processes - on_machine) / processes if parts <= on_machine else on_machine * (1 - 1 / copies) / parts
    return outside / parts * divided + direct + 2 * summed * model


def _exchanged(tensors: RunTensors, processes: int, itemsize: int) -> int:
    """Bytes of matrices that a process receives or sends, in the one with the most, when each goes to its owner."""
    received, sent = [0] * processes, [0] * processes
    first_owner = 0
    for (rows, columns), count in tensors.matrices.items():
        owned = owned_matrices(count, processes, first_owner)
        for process, (own_rows, matrices) in enumerate(zip(divided_rows(rows, processes), owned, strict=True)):
            received[process] += len(matrices) * (rows - own_rows) * columns
            sent[process] += (count - len(matrices)) * own_rows * columns
        first_owner += count
    return itemsize * max(*received, *sent)
