"""How the threads of torch wait for each other: on a busy machine, and in a server, they sleep instead of spinning."""

from __future__ import annotations

import os

import psutil

WAIT_POLICY = "OMP_WAIT_POLICY"
# Cores that other processes use. A thread that spins while the one it waits for is not scheduled takes away its time:
# beside other work, steps of two threads took ten times as long and more. On an idle machine, spinning is faster.
BUSY_CORES = 0.5
INTERVAL = 0.1  # seconds


def sleep_if_busy() -> None:
    """Let threads sleep if other processes use the cores; has an effect before torch is imported only.

    The environment variable OMP_WAIT_POLICY takes precedence.
    """
    if WAIT_POLICY not in os.environ:
        cores = psutil.cpu_percent(INTERVAL) / 100 * (psutil.cpu_count() or 1)
        if cores > BUSY_CORES:
            sleep_always()


def sleep_always() -> None:
    """Let threads sleep, as `sleep_if_busy` does, also on an idle machine: for programs that will be busy."""
    os.environ.setdefault(WAIT_POLICY, "passive")
