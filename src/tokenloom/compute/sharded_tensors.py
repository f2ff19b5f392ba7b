"""Tensors that are divided among processes by rows: whole ones gathered from them, and distributed to them.

Functions of a `World`, and those that make tensors whole or divide them, are collective: every process calls them in
the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor

from tokenloom.compute.parallel import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def divided_rows(rows: int, processes: int) -> list[int]:
    """The rows of a tensor that each process holds: equal parts, but for the last processes, which can have none."""
    chunk = -(-rows // processes)
    return [max(0, min(chunk, rows - start)) for start in range(0, chunk * processes, chunk)]


def balanced_owners(sizes: Iterable[int], processes: int) -> Iterator[int]:
    """For each tensor of a size in bytes, the process that has the fewest bytes so far."""
    loads = [0] * processes
    for size in sizes:
        owner = loads.index(min(loads))
        loads[owner] += size
        yield owner


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether this process holds a part of the tensor only."""
    # Without this module there are no such tensors; to import it takes a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor in this process, which shares its memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, in every process."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def whole_on_main(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Whole tensors on the CPU of the main process; nothing in the others."""
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        with world.errors_named():
            full = whole(tensor.detach())
        if world.is_main:
            gathered[name] = full.cpu()
    return gathered


def whole_share(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Whole tensors on the CPU, each in one process only; all processes get about as many bytes."""
    share: dict[str, Tensor] = {}
    for (name, tensor), owner in zip(
        tensors.items(), balanced_owners(map(_bytes_of, tensors.values()), world.world_size), strict=True
    ):
        with world.errors_named():
            full = whole(tensor.detach())
        if owner == world.rank:
            share[name] = full.cpu()
    return share


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on the device of a parameter and, if that is sharded, divided as it is.

    Then the values are those of the main process; the others may pass a tensor on the meta device.
    """
    if not is_sharded(parameter) or tensor.ndim == 0:
        return tensor.to(parameter.device)
    result = torch.empty_like(parameter)
    set_from_main(result, tensor)
    return result


def described_by_main(tensors: Mapping[str, Tensor] | None, world: World) -> Mapping[str, Tensor]:
    """The tensors of the main process; the others pass None, and get the scalars, and the shapes on the meta device."""
    described = {name: tensor.to("meta") if tensor.ndim else tensor for name, tensor in (tensors or {}).items()}
    described = world.broadcast(described)
    return described if tensors is None else tensors


@torch.no_grad()
def set_from_main(target: Tensor, source: Tensor) -> None:
    """Set a sharded tensor to the main process's `source`, a whole one; in other processes its values are not used."""
    from torch.distributed.tensor import distribute_tensor

    assert is_sharded(target)
    if dist.get_rank() > 0:
        source = torch.empty(target.shape, dtype=target.dtype, device=target.device)
    source = source.detach().to(target.device, target.dtype)
    target.copy_(distribute_tensor(source, target.device_mesh, target.placements, src_data_rank=0))


def _bytes_of(tensor: Tensor) -> int:
    """The bytes of all rows of a tensor."""
    return tensor.numel() * tensor.itemsize
