"""Functions of whole matrices that are divided among processes by rows: each matrix is computed by one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import Tensor

from tokenloom.compute.sharded_tensors import divided_rows

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def map_whole_matrices(
    function: Callable[[Tensor], Tensor], matrices: Sequence[Tensor], first_owner: int = 0
) -> list[Tensor]:
    """This process's rows of `function` of each matrix, computed on the whole matrix by one process only.

    `matrices` are sharded and of one shape; `function` maps a stack (N, rows, columns) to another. Matrix i is gathered
    by process (first_owner + i) mod P of the P that share it. Source: Dion arXiv:2504.05295, which distributes Muon in
    this way.
    """
    sharded = [cast("DTensor", matrix) for matrix in matrices]
    mesh, (rows, columns) = sharded[0].device_mesh, sharded[0].shape
    processes, rank, group = mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1), mesh.get_group(mesh.ndim - 1)
    rows_of = divided_rows(rows, processes)
    owned = owned_matrices(len(matrices), processes, first_owner)
    order = [i for indices in owned for i in indices]
    sent_counts = [len(indices) * rows_of[rank] * columns for indices in owned]
    received_counts = [len(owned[rank]) * count * columns for count in rows_of]

    parts = _exchange([sharded[i].to_local() for i in order], sent_counts, received_counts, group)
    gathered = [part.view(len(owned[rank]), count, columns) for part, count in zip(parts, rows_of, strict=True)]
    results = function(torch.cat(gathered, dim=1))  # (N, rows, columns), where N can be 0
    parts = _exchange(torch.split(results, rows_of, dim=1), received_counts, sent_counts, group)
    mine = torch.cat(parts).view(len(matrices), rows_of[rank], columns)
    return [mine[order.index(i)] for i in range(len(matrices))]


def owned_matrices(count: int, processes: int, first_owner: int = 0) -> list[range]:
    """The matrices, of `count`, that each process computes."""
    return [range((process - first_owner) % processes, count, processes) for process in range(processes)]


def _exchange(
    tensors: Sequence[Tensor], sent_counts: list[int], received_counts: list[int], group: dist.ProcessGroup
) -> tuple[Tensor, ...]:
    """Send `tensors`, one after another, in parts of `sent_counts` values; what each process has sent to this one."""
    sent = torch.cat([tensor.flatten() for tensor in tensors])
    received = sent.new_empty(sum(received_counts))
    dist.all_to_all_single(received, sent, received_counts, sent_counts, group=group)  # pyright: ignore  # not annotated
    return torch.split(received, received_counts)
