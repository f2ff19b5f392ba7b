"""Fully sharded training (FSDP2): weights, gradients and optimizer state are divided among processes, by rows."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed
from torch import nn

from tokenloom.compute.keepalive import detect_lost_machines
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

    There can be several `replicas` of the model, each divided among as many processes, which have consecutive ranks.
    Weights are then gathered within such a group, and gradients are summed within it first (hybrid sharding).
    """

    def __init__(self, model: nn.Module, world: World, device: torch.device, replicas: int = 1) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        self._world = world
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        mesh = _mesh(world, device, replicas)
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


def _mesh(world: World, device: torch.device, replicas: int) -> DeviceMesh:
    """All processes as one group, or in as many groups as there are replicas."""
    from torch.distributed.device_mesh import init_device_mesh

    if replicas == 1:
        shape, names = (world.world_size,), ("shard",)
    else:
        shape, names = (replicas, world.world_size // replicas), ("replicate", "shard")
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    detect_lost_machines()  # a group has connections of its own
    return mesh
