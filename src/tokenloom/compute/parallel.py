"""The processes of a distributed run, started by torchrun: their group, and what they compute together.

Only this module and those of the strategies call torch.distributed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from tokenloom.compute.group_store import launch_name, new_group
from tokenloom.compute.keepalive import detect_lost_machines
from tokenloom.compute.peers import Peers
from tokenloom.compute.runtime import Runtime, choose_runtime
from tokenloom.errors import DistributedError, TokenloomError, UsageError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import PrefixStore

T = TypeVar("T")

# Longer than anything that one process does while the others wait, such as writing a large checkpoint to a network
# disk. A process that has ended is noticed at once, and a machine that no longer answers after a minute: this is for
# processes that hang, and for NCCL.
TIMEOUT = timedelta(minutes=15)


class Work(Protocol):
    """A collective operation that has been started."""

    def wait(self) -> object: ...


@dataclass(frozen=True)
class World:
    """The default process group as this process sees it; without torchrun, rank 0 of 1.

    All methods but `leave` are collective: every process has to call them in the same order. They raise
    `DistributedError`, which names the process, if another one has ended.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    peers: Peers | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and terminal output."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Element-wise sum over all processes, in place."""
        if self.world_size > 1:
            self.wait(self.start_all_reduce(values))
        return values

    def start_all_reduce(self, values: Tensor) -> Work:
        """Start `all_reduce`; the values are the sums after `wait`."""
        with self.errors_named():
            return cast(Work, dist.all_reduce(values, async_op=True))  # pyright: ignore  # torch does not annotate it

    def wait(self, work: Work) -> None:
        """Wait for an operation that was started."""
        with self.errors_named():
            work.wait()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes, in double precision."""
        if self.world_size == 1:
            return list(values)
        sums = self.all_reduce(torch.tensor(values, dtype=torch.float64))
        return sums.tolist()  # pyright: ignore  # torch does not annotate it

    def broadcast(self, value: T) -> T:
        """The main process's value, in every process. The value is pickled, so it should be small."""
        values = [value]
        if self.world_size > 1:
            with self.errors_named():
                dist.broadcast_object_list(values)
        return values[0]

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Set tensors to those of the main process, in place."""
        if self.world_size > 1:
            with self.errors_named(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)  # pyright: ignore  # torch does not annotate it

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns in the main process, in every process; it is called in the main process only.

        An error is raised in every process, so that none of them waits for one that has failed.
        """
        if self.world_size == 1:
            return work()
        result: T | None = None
        error: Exception | None = None
        if self.is_main:
            try:
                result = work()
            except Exception as raised:
                error = raised
        failure, result = self.broadcast((_shared(error), result))
        if error is not None:
            raise error
        if failure is not None:
            raise failure
        return cast(T, result)

    def barrier(self) -> None:
        """Block until every process has reached this point."""
        self.sum([0.0])

    def leave(self, error: Exception) -> None:
        """Tell the other processes why this one ends; they do not have to call it.

        If the main process ends for the same reason, `error.is_reported` is set, so that it is printed once.
        """
        if self.peers is not None:
            destroy_process_group()  # the others notice at once, even those that wait for this process
            self.peers.leave(error)

    @contextmanager
    def errors_named(self) -> Generator[None]:
        """A context in which an error of a collective operation becomes a `DistributedError`."""
        try:
            yield
        except RuntimeError as error:
            if self.peers is None:
                raise
            destroy_process_group()
            raise self.peers.lost(error) from error


def refuse_device(name: str, kind: str) -> None:
    """Raise `UsageError` for a device, of a kind such as cuda, that several processes cannot use on any machine."""
    if kind == "mps":
        raise UsageError('device "mps" does not support several processes. Use --device cpu, or start one process.')
    if kind == "cuda" and ":" in name:
        raise UsageError(f'device "{name}" would be used by every process. Use --device cuda: each gets its own GPU.')


def launched_processes() -> int:
    """The number of processes that torchrun started; 1 without it."""
    return _from_environment("WORLD_SIZE", 1)


def launched_rank() -> int:
    """The rank that torchrun gave this process; 0 without it."""
    return _from_environment("RANK", 0)


def processes_on_machine() -> int:
    """The number of processes that torchrun started on this machine; 1 without it."""
    return max(1, _from_environment("LOCAL_WORLD_SIZE", 1))


def can_restart() -> bool:
    """Whether torchrun started this process, and keeps its store if it starts it again (--max-restarts)."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def launch_id() -> str:
    """What the processes of one torchrun command have in common, restarted ones included; if `can_restart`.

    Not its --rdzv-id, which another command can have as well.
    """
    with _connection_errors():
        return launch_name(_store())


def process_id() -> str:
    """What distinguishes this process from all others."""
    process = psutil.Process()
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.2f}"


def join_processes(device: str, precision: str) -> tuple[World, Runtime]:
    """The group of the processes that torchrun started, and the device of this one.

    Raises `UsageError` if the device cannot be used, and `DistributedError` if the other processes cannot be reached.
    """
    local_rank = _from_environment("LOCAL_RANK", 0)
    runtime = choose_runtime(device, precision, local_rank)
    if launched_processes() > 1:
        _refuse_unsuitable(device, runtime.device, local_rank)
    return init_process_group(runtime.device), runtime


def init_process_group(device: torch.device | None = None) -> World:
    """Join the process group that torchrun set up, to compute on `device`; without torchrun, a world of one process.

    A call in a process that has joined already returns the same world.
    """
    global _world, _has_joined
    size, rank = launched_processes(), launched_rank()
    if size == 1:
        return World()
    if _world is not None and dist.is_initialized():
        return _world
    from torch.distributed.distributed_c10d import PrefixStore

    on_cuda = device is not None and device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    with _connection_errors():
        store = _store()
        store = PrefixStore(new_group(store, rank, size, TIMEOUT), store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
            device_id=device if on_cuda else None,
        )
        _has_joined = True
        _world = World(rank, size, _from_environment("LOCAL_RANK", 0), Peers.join(store, rank, size))
    detect_lost_machines()
    return _world


def destroy_process_group() -> None:
    """Leave the process group; does nothing without one."""
    global _world
    _world = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def has_joined() -> bool:
    """Whether this process is in a process group, or has been in one.

    torch keeps the group of a model that was wrapped in DDP after it has been left, with the threads of gloo. A thread
    that releases a tensor while the interpreter ends is stopped by it, and with it the process, by SIGABRT. Therefore
    such a process should end by `os._exit`.
    """
    return _has_joined


_world: World | None = None
_has_joined = False


@contextmanager
def _connection_errors() -> Generator[None]:
    """A context in which an error of connecting the processes becomes a `DistributedError`."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DistributedError(
            f"the {launched_processes()} processes cannot connect: {reason}. Start them with torchrun, which sets "
            "MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE."
        ) from error


def _store() -> PrefixStore:
    """The store of torchrun; without torchrun, that of rank 0."""
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous  # pyright: ignore[reportUnknownVariableType]

    address = launched_rank(), launched_processes()
    store, _, _ = next(rendezvous("env://", *address, timeout=TIMEOUT))  # pyright: ignore  # torch does not annotate it
    return PrefixStore("tokenloom", store)  # torchrun has keys of its own in it


def _from_environment(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    if value and not value.isdecimal():
        raise UsageError(f"the environment variable {variable} is {value!r}, not a number. torchrun sets it.")
    return int(value) if value else default


def _refuse_unsuitable(name: str, device: torch.device, local_rank: int) -> None:
    """Raise `UsageError` for a device that several processes cannot use."""
    if not dist.is_available():
        raise UsageError("this build of torch has no torch.distributed. Start a single process, without torchrun.")
    refuse_device(name, device.type)
    if device.type == "cuda" and local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"there are more processes on this machine than GPUs. Use torchrun --nproc-per-node "
            f"{torch.cuda.device_count()}, or --device cpu."
        )


def _shared(error: Exception | None) -> Exception | None:
    """An error of the main process as the others raise it: they do not print it."""
    if error is None:
        return None
    if not isinstance(error, TokenloomError):
        error = DistributedError(f"rank 0 has stopped with an error: {error}")
    copied = error.copy()
    copied.is_reported = True
    return copied
