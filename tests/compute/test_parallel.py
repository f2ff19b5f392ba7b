"""Several processes get the results of one process with the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from tokenloom.compute import replicas
from tokenloom.compute.keepalive import LOST_SECONDS
from tokenloom.compute.parallel import World, destroy_process_group, init_process_group, join_processes
from tokenloom.compute.strategies import parallelize
from tokenloom.data.batches import Batches
from tokenloom.data.token_reader import TokenArray
from tokenloom.errors import DataError, DistributedError, UsageError

# The program of each process: the gradient of its share of a batch, summed over the processes, and what else they do
# together.
PROCESS = """
import os
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
import torch
from safetensors.torch import save_file
from conftest import make_model
from test_parallel import FAMILIES, backward_on_share, fail, timeouts_of_connections
from tokenloom.compute.parallel import destroy_process_group, has_joined, init_process_group
from tokenloom.errors import DataError

assert not has_joined()
world = init_process_group()
assert init_process_group() is world
tensors = {}
for family in FAMILIES:
    model = make_model(family).double()
    if world.rank == 1:
        with torch.no_grad():
            model.wte.weight.zero_()  # the main process's weights are used
    backward_on_share(model, world)
    tensors |= {f"{family}/{name}": parameter.grad for name, parameter in model.named_parameters()}
tensors["reduced"] = world.all_reduce(torch.tensor([float(world.rank), 1.0]))
tensors["summed"] = torch.tensor(world.sum([world.rank + 0.5, 2]))
tensors["broadcast"] = torch.tensor(world.broadcast(10 + world.rank))
tensors["on main"] = torch.tensor(world.on_main(lambda: 20 + world.rank))
try:
    world.on_main(fail)
except DataError as error:
    tensors["failed"] = torch.tensor([str(error) == "no text", error.is_reported])
tensors["timeouts"] = torch.tensor(timeouts_of_connections())
tensors["world"] = torch.tensor([world.rank, world.world_size, world.local_rank, world.is_main])
world.barrier()
destroy_process_group()
assert has_joined()
save_file(tensors, Path(sys.argv[1]) / f"{world.rank}.safetensors")
os._exit(0)
"""
FAMILIES = ("gpt2", "modern")


TOKENS = TokenArray(torch.randint(0, 60, (200,), generator=torch.Generator().manual_seed(3)).numpy())


def fail() -> None:
    raise DataError("no text")


def timeouts_of_connections() -> list[int]:
    """Milliseconds after which each connection of this process is closed if the other machine does not answer."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return []
    connections = [each for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
    sockets = [socket.socket(fileno=os.dup(connection.fd)) for connection in connections]
    return [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for each in sockets]


def backward_on_share(model, world) -> None:
    """Two micro-batches, in buckets that are smaller than the largest parameters."""
    replicas.BUCKET_BYTES = 4096
    parallelism = parallelize(model, world, "ddp")
    batches = Batches(TOKENS, block_size=16, batch_size=4, seed=1)
    ids, targets = batches.batch(5, world.rank, world.world_size)
    halves = zip(ids.chunk(2), targets.chunk(2), strict=True)
    for number, (some_ids, some_targets) in enumerate(halves):
        with parallelism.micro_batch(is_last=number == 1):
            (model.loss(some_ids, some_targets, "sum") / (4 * 16)).backward()


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
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path, model_of):
    first, second = start(tmp_path, 2)
    for rank, tensors in enumerate((first, second)):
        assert tensors["world"].tolist() == [rank, 2, rank, rank == 0]
        assert tensors["reduced"].tolist() == [1.0, 2.0]
        assert tensors["summed"].tolist() == [2.0, 4.0]
        assert tensors["broadcast"].item() == 10
        assert tensors["on main"].item() == 20
        assert len(tensors["timeouts"]) >= 2 * hasattr(socket, "TCP_USER_TIMEOUT")  # to the store, to the other process
        assert all(tensors["timeouts"] == 1000 * LOST_SECONDS)
        assert tensors["failed"].tolist() == [True, rank == 1]
    for family in FAMILIES:
        single = model_of(family).double()
        backward_on_share(single, World())
        for name, parameter in single.named_parameters():
            gradient = first[f"{family}/{name}"]
            assert torch.equal(gradient, second[f"{family}/{name}"]), name
            # The same sums in a different order, in double precision.
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-13)
            assert parameter.grad.abs().max() > 0


def test_a_single_process_needs_no_process_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = init_process_group()
    assert world == World(rank=0, world_size=1, local_rank=0)
    assert world.is_main
    assert world.all_reduce(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert world.sum([1, 2.5]) == [1, 2.5]
    assert world.on_main(lambda: 3) == 3
    assert world.broadcast(False) is False
    world.barrier()
    destroy_process_group()


def test_a_world_size_of_one_starts_no_process_group(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert init_process_group() == World()
    assert not dist.is_initialized()


def test_processes_that_torchrun_did_not_start_are_an_error_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for variable in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        DistributedError, match="the 2 processes cannot connect: .*MASTER_ADDR.* Start them with torchrun"
    ):
        join_processes("cpu", "fp32")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two', not a number"):
        join_processes("cpu", "fp32")


def test_one_process_cannot_divide_a_model(model):
    with pytest.raises(UsageError, match="--strategy fsdp needs several processes. .* or use --strategy auto"):
        parallelize(model, World(), "fsdp")
