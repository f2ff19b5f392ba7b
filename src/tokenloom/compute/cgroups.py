"""The memory that the control groups of this process leave: containers and job schedulers set such limits on Linux."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Version 1 reports no limit as the largest number of pages.
NO_LIMIT = 1 << 62


@dataclass(frozen=True)
class _Hierarchy:
    """The files of a version of cgroups in each of its folders."""

    mount: str
    limit: str
    usage: str
    cache: str
    """The key in memory.stat of the file cache that the kernel drops when memory runs short."""


_VERSION_1 = _Hierarchy("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = _Hierarchy("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def available_in_cgroups(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate: the minimum over its control group and all above it.

    None without a limit. `root` is the folder that contains proc and sys.
    """
    groups = _folders(root)
    return min(
        (left for hierarchy, folder in groups if (left := _available(hierarchy, folder)) is not None), default=None
    )


def _folders(root: Path) -> Iterator[tuple[_Hierarchy, Path]]:
    """The folder of each control group of this process, and those above it.

    In a container, paths may be those of the host: then only the folder at the mount exists.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in filter(None, lines):
        _, controllers, path = line.split(":", 2)  # version 2 has no controllers here
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy = _VERSION_1 if controllers else _VERSION_2
        mount = root / hierarchy.mount
        group = mount / path.lstrip("/")
        yield hierarchy, group
        for parent in group.parents:
            if not parent.is_relative_to(mount):
                break
            yield hierarchy, parent


def _available(hierarchy: _Hierarchy, folder: Path) -> int | None:
    try:
        limit, usage = (int((folder / name).read_text()) for name in (hierarchy.limit, hierarchy.usage))
    except (OSError, ValueError):  # a group of another controller, or "max"
        return None
    if limit >= NO_LIMIT:
        return None
    return max(0, limit - usage + _reclaimable(hierarchy, folder))


def _reclaimable(hierarchy: _Hierarchy, folder: Path) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.split()[0] == hierarchy.cache)
    except (OSError, ValueError, IndexError, StopIteration):
        return 0
