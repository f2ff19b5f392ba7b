"""Several processes get the results of one process with the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from tokenloom.compute.parallel import World, destroy_process_group, init_process_group
from tokenloom.data.batches import Batches
from tokenloom.data.token_reader import TokenArray

# The program of each process: the gradient of its share of a batch, summed over the processes.
PROCESS = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
import torch
from safetensors.torch import save_file
from conftest import make_model
from test_parallel import backward_on_share
from tokenloom.compute.parallel import init_process_group, destroy_process_group

world = init_process_group()
assert init_process_group() == world
model = make_model(sys.argv[4]).double()
backward_on_share(model, world)
tensors = {name: parameter.grad for name, parameter in model.named_parameters()}
tensors["summed"] = world.all_reduce(torch.tensor([float(world.rank), 1.0]))
tensors["broadcast"] = torch.tensor(world.broadcast(10 + world.rank))
tensors["world"] = torch.tensor([world.rank, world.world_size, world.local_rank, world.is_main])
world.barrier()
destroy_process_group()
save_file(tensors, Path(sys.argv[1]) / f"{world.rank}.safetensors")
"""


TOKENS = TokenArray(torch.randint(0, 60, (200,), generator=torch.Generator().manual_seed(3)).numpy())


def backward_on_share(model, world) -> None:
    batches = Batches(TOKENS, block_size=16, batch_size=4, seed=1)
    ids, targets = batches.batch(5, world.rank, world.world_size)
    (model.loss(ids, targets, "sum") / (4 * 16)).backward()
    world.all_reduce_gradients(model.parameters())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(folder: Path, size: int, *arguments: str) -> list[dict[str, torch.Tensor]]:
    """Start processes as torchrun does, on loopback; returns the tensors that each of them saved."""
    here = Path(__file__).parent
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    command = [sys.executable, "-c", PROCESS, str(folder), str(here), str(here.parent), *arguments]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **rendezvous, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(size)]


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path, model_of, family):
    first, second = start(tmp_path, 2, family)
    for rank, tensors in enumerate((first, second)):
        assert tensors.pop("world").tolist() == [rank, 2, rank, rank == 0]
        assert tensors.pop("summed").tolist() == [1.0, 2.0]
        assert tensors.pop("broadcast").item() == 10
    single = model_of(family).double()
    backward_on_share(single, World())
    for name, parameter in single.named_parameters():
        assert torch.equal(first[name], second[name]), name
        # The same sums in a different order, in double precision.
        torch.testing.assert_close(first[name], parameter.grad, rtol=1e-10, atol=1e-13)
        assert parameter.grad.abs().max() > 0


def test_a_single_process_needs_no_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = init_process_group()
    assert world == World(rank=0, world_size=1, local_rank=0)
    assert world.is_main
    assert world.all_reduce(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    parameter = torch.ones(2, requires_grad=True)
    parameter.grad = torch.full((2,), 3.0)
    world.all_reduce_gradients([parameter, torch.ones(1, requires_grad=True)])
    assert parameter.grad.tolist() == [3.0, 3.0]
    assert world.broadcast(False) is False
    world.barrier()
    destroy_process_group()


def test_a_world_size_of_one_starts_no_process_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert init_process_group() == World()
    assert not dist.is_initialized()
