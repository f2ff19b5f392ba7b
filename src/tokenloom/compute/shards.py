"""Fully sharded training (FSDP2): weights, gradients and optimizer state are divided among processes, by rows."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed
from torch import nn

from tokenloom.compute.parallel import World
from tokenloom.compute.sharded_tensors import set_from_main

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# torch.distributed.fsdp is imported where it is used: that takes a second, and most commands run one process.


class Shards:
    """A model of which each process holds a part. `model` is changed in place, and moved to `device`.

    The weights are those of the main process; in the others they can be uninitialized. The weights of a block are
    gathered when it runs, and freed after it; the others, tied embeddings among them, are gathered once a step.
    Gradients are summed over the processes, not averaged, because each divides its loss by the token count of the whole
    step. Source: FSDP, arXiv:2304.11277.

    Weights and gradients are exchanged in fp32, so that results do not depend on the number of processes. Matrix
    products run in lower precision by autocast, as with one process.

    With `group_size`, groups of so many processes hold a model each; it divides the number of processes.
    """

    def __init__(self, model: nn.Module, world: World, device: torch.device, group_size: int | None = None) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        self._world = world
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        mesh = _mesh(world, device, group_size)
        for block in cast("Iterable[nn.Module]", model.get_submodule("h")):
            fully_shard(block, mesh=mesh)
        self._model = fully_shard(model, mesh=mesh)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # each setter applies to one module
                # Together they make a plain sum, also with gloo.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(model, "loss")
        with world.errors_named():
            for name, parameter in model.named_parameters():
                set_from_main(parameter, weights.pop(name))

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Generator[None]:
        """A context for the forward and backward pass of one micro-batch; gradients are the sums after the last one."""
        self._model.set_requires_gradient_sync(is_last)
        try:
            yield
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            with self._world.errors_named():
                raise


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo's errors have no class of their own.
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _mesh(world: World, device: torch.device, group_size: int | None) -> DeviceMesh:
    """All processes as one group, or as groups of `group_size`."""
    from torch.distributed.device_mesh import init_device_mesh

    size = world.world_size
    if group_size is None or group_size == size:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (size // group_size, group_size), mesh_dim_names=("replicate", "shard"))
