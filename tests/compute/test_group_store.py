"""The names of groups and of torchrun commands, in a store that outlives the processes."""

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from tokenloom.compute.group_store import launch_name, new_group

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")

TIMEOUT = timedelta(seconds=60)


def groups_of(store, size):
    """The name that each of `size` processes gets."""
    names = {}
    threads = [
        threading.Thread(target=lambda rank=rank: names.update({rank: new_group(store, rank, size, TIMEOUT)}))
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [names[rank] for rank in range(size)]


def test_all_processes_get_one_name_and_those_of_a_restart_another_one():
    store = dist.HashStore()
    first, second = groups_of(store, 4), groups_of(store, 3)
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_what_a_killed_process_has_written_is_not_answered_instead_of_the_next_one():
    store = dist.HashStore()
    store.set("token/1", "killed")  # and rank 0 of its group was killed before it answered, or after
    store.set("group/killed", "old")
    first, second = groups_of(store, 2)
    assert first == second != "old"


def test_a_process_that_does_not_start_is_named():
    with pytest.raises(RuntimeError, match="rank 1 has not started within 0 seconds"):
        new_group(dist.HashStore(), 0, 2, timedelta(seconds=0))


def test_a_launch_keeps_its_name():
    store = dist.HashStore()
    assert launch_name(store) == launch_name(store) != launch_name(dist.HashStore())
