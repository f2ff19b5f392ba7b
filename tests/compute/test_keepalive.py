"""Connections end when the machine at their other end is lost, and only then."""

import os
import re
import socket
import subprocess
import sys
import uuid
from contextlib import ExitStack

import pytest
import torch.distributed as dist

from tokenloom.compute.keepalive import LOST_SECONDS, detect_lost_machines

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has this option")

# Two processes compute sums together; in the second round, one of them takes longer than a lost machine may.
PROCESS = """
import time
from tokenloom.compute import keepalive
keepalive.LOST_SECONDS, keepalive.PROBE_SECONDS = 3, 1
from tokenloom.compute.parallel import init_process_group
from tokenloom.errors import DistributedError
world = init_process_group()
world.sum([1.0])
if world.rank == 1:
    time.sleep(3 * keepalive.LOST_SECONDS)
world.sum([1.0])
print("two rounds", flush=True)
try:
    while True:
        world.sum([1.0])
except DistributedError as error:
    print(error)
"""


def test_open_connections_have_the_options_and_still_work():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        detect_lost_machines()
        for end in (client, accepted):
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * LOST_SECONDS
        client.sendall(b"text")
        assert accepted.recv(4) == b"text"


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def machines():
    """The names of two network namespaces, connected by a link; each stands for a machine."""
    names = [f"tl-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    with ExitStack() as undo:
        try:
            for name in names:
                run("ip", "netns", "add", name)
                undo.callback(run, "ip", "netns", "delete", name)
            run("ip", "link", "add", "eth", "netns", names[0], "type", "veth", "peer", "eth", "netns", names[1])
            for number, name in enumerate(names, start=1):
                run("ip", "-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth")
                run("ip", "-n", name, "link", "set", "eth", "up")
                run("ip", "-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("network namespaces need root, and iproute2")
        yield names


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
@pytest.mark.parametrize("lost", [0, 1])
def test_a_machine_that_is_lost_is_noticed_and_a_busy_process_is_not_taken_for_one(machines, lost):
    environment = {
        **os.environ,
        "MASTER_ADDR": "10.77.0.1",
        "MASTER_PORT": "29500",  # of a network of its own
        "GLOO_SOCKET_IFNAME": "eth",
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", PROCESS],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, name in enumerate(machines)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "two rounds\n"
        run("ip", "-n", machines[lost], "link", "set", "eth", "down")
        printed, _ = processes[1 - lost].communicate(timeout=60)  # without the options: 15 minutes
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert re.search(rf"rank {lost} .*has ended", printed), printed
