"""Replicas of a sharded model: which processes hold which part, without starting them."""

import pytest
import torch
import torch.distributed as dist
from sharded_processes import new_model

from tokenloom.compute.parallel import World
from tokenloom.compute.sharded_tensors import local
from tokenloom.compute.shards import Shards

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")


@pytest.fixture
def group_of():
    """Joins a group of processes that do not exist: `group_of(rank, size)`."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def join(rank, size):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=size)
        return World(rank, size)

    yield join
    dist.destroy_process_group()


@pytest.mark.parametrize(("replicas", "processes"), [(1, 4), (2, 2)])
def test_a_replica_is_divided_among_consecutive_ranks(group_of, replicas, processes):
    rank = 2
    model = new_model("modern")
    rows = {name: len(parameter) for name, parameter in model.named_parameters()}
    Shards(model, group_of(rank, 4), torch.device("cpu"), replicas)
    for name, parameter in model.named_parameters():
        chunk = -(-rows[name] // processes)
        expected = min(chunk, max(0, rows[name] - chunk * (rank % processes)))
        assert len(local(parameter)) == expected, name
        mesh = parameter.device_mesh
        assert mesh.mesh.tolist()[rank // processes if replicas > 1 else slice(None)] == list(
            range(rank // processes * processes, (rank // processes + 1) * processes)
        )
