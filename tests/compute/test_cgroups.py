"""Limits of control groups, in folders laid out like /proc and /sys."""

from pathlib import Path

import psutil
import pytest
import torch

from tokenloom.compute import runtime
from tokenloom.compute.cgroups import available_in_cgroups

GB = 10**9


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def version_2(group: str, limit: object, used: int, cache: int = 0) -> dict[str, object]:
    folder = f"sys/fs/cgroup{group}"
    stat = f"anon {used - cache}\nfile {cache}\ninactive_file {cache}"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": used, f"{folder}/memory.stat": stat}


def version_1(group: str, limit: int, used: int, cache: int = 0) -> dict[str, object]:
    folder = f"sys/fs/cgroup/memory{group}"
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        f"{folder}/memory.stat": f"cache {cache}\ntotal_inactive_file {cache}",
    }


def test_the_limit_of_version_2_less_what_is_used(tmp_path):
    root = write(tmp_path, {"proc/self/cgroup": "0::/jobs/7"} | version_2("/jobs/7", 8 * GB, 3 * GB))
    assert available_in_cgroups(root) == 5 * GB


def test_the_file_cache_counts_as_available(tmp_path):
    root = write(tmp_path, {"proc/self/cgroup": "0::/jobs/7"} | version_2("/jobs/7", 8 * GB, 7 * GB, cache=4 * GB))
    assert available_in_cgroups(root) == 5 * GB


def test_the_smallest_of_the_groups_above_applies(tmp_path):
    groups = version_2("/a/b/c", "max", GB) | version_2("/a/b", 8 * GB, GB) | version_2("/a", 9 * GB, 7 * GB)
    root = write(tmp_path, {"proc/self/cgroup": "0::/a/b/c"} | groups)
    assert available_in_cgroups(root) == 2 * GB


@pytest.mark.parametrize("path", ["/", "/docker/0123abc", "/../other"])
def test_in_a_container_the_limit_is_at_the_mount(tmp_path, path):
    root = write(tmp_path, {"proc/self/cgroup": f"0::{path}"} | version_2("", 4 * GB, GB))
    assert available_in_cgroups(root) == 3 * GB


def test_version_1_has_a_memory_hierarchy_of_its_own(tmp_path):
    lines = "12:cpu,cpuacct:/jobs\n5:memory:/jobs/7\n1:name=systemd:/init\n0::/"
    groups = version_1("/jobs/7", 6 * GB, 2 * GB, cache=GB) | version_1("", 9223372036854771712, 90 * GB)
    assert available_in_cgroups(write(tmp_path, {"proc/self/cgroup": lines} | groups)) == 5 * GB


def test_a_group_that_is_above_its_limit_leaves_nothing(tmp_path):
    root = write(tmp_path, {"proc/self/cgroup": "0::/"} | version_2("", GB, 2 * GB))
    assert available_in_cgroups(root) == 0


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": ""},
        {"proc/self/cgroup": "0::/"},
        {"proc/self/cgroup": "0::/"} | version_2("", "max", GB),
        {"proc/self/cgroup": "5:memory:/"} | version_1("", 9223372036854771712, GB),
    ],
)
def test_without_a_limit_there_is_none(tmp_path, files):
    assert available_in_cgroups(write(tmp_path, files)) is None


@pytest.mark.parametrize(("limit", "expected"), [(3 * GB, 3 * GB), (50 * GB, 16 * GB), (None, 16 * GB)])
def test_available_memory_is_the_smaller_of_machine_and_limit(monkeypatch, limit, expected):
    monkeypatch.setattr(runtime, "available_in_cgroups", lambda: limit)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 16 * GB}))
    assert runtime.available_memory(torch.device("cpu")) == expected
