"""Which process is named as the one that ended, and which process prints the line."""

import os
import subprocess
import sys
import threading

import pytest
import torch.distributed as dist

from tokenloom.compute import peers
from tokenloom.compute.peers import Peers
from tokenloom.errors import CheckpointError, DivergedError

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")


@pytest.fixture
def joined(monkeypatch):
    """The three processes of a group: this one, as each of them."""
    monkeypatch.setattr(peers, "CHECK_IN_SECONDS", 0.2)
    monkeypatch.setattr(peers, "LEAVE_SECONDS", 0.2)
    store = dist.HashStore()
    return [Peers.join(store, rank, 3) for rank in range(3)]


def test_a_process_that_wrote_nothing_is_named_by_one_of_the_others(joined):
    joined[2]._write(peers.LOST)
    first, third = joined[0].lost(RuntimeError("closed")), joined[2].lost(RuntimeError("closed"))
    assert f"rank 1 (process {os.getpid()} on" in str(first)
    assert "of 3 has ended without a message" in str(first)
    assert str(first) == str(third)
    assert (first.is_reported, third.is_reported) == (False, True)


def test_a_process_of_this_machine_that_has_ended_is_named_without_waiting(joined, monkeypatch):
    monkeypatch.setattr(peers, "CHECK_IN_SECONDS", 1000.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    joined[0].store.set("process/2", f'["{peers.socket.gethostname()}", {ended.pid}]')
    assert f"rank 2 (process {ended.pid} on" in str(joined[0].lost(RuntimeError("closed")))


def test_the_error_with_which_another_process_has_stopped_is_repeated_and_not_printed_again(joined):
    joined[1].leave(CheckpointError("the disk is full"))
    lost = joined[0].lost(RuntimeError("Connection closed by peer"))
    assert str(lost) == "rank 1 of 3 has stopped with an error: the disk is full"
    assert lost.is_reported


def test_an_error_of_all_processes_is_printed_by_rank_0(joined):
    errors = [DivergedError("step 3", 1.0, 2.0) for _ in joined]
    threads = [threading.Thread(target=each.leave, args=(error,)) for each, error in zip(joined, errors, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error.is_reported for error in errors] == [False, True, True]


def test_an_error_of_one_process_is_printed_by_it(joined):
    error = CheckpointError("unreadable")
    joined[2].leave(error)
    assert not error.is_reported
