"""How the threads of torch wait for each other: they spin, or sleep on a busy machine, or spin briefly in a server."""

from __future__ import annotations

import os

import psutil

WAIT_POLICY = "OMP_WAIT_POLICY"
SPIN_COUNT = "GOMP_SPINCOUNT"  # of libgomp, which torch uses on Linux; its default is 300,000
# A server with one stream is faster with threads that spin, and one with many is faster without (decision 16).
BRIEF_SPINS = 10_000
# Cores that other processes use. A thread that spins while the one it waits for is not scheduled takes away its time:
# beside other work, steps of two threads took ten times as long and more. On an idle machine, spinning is faster.
BUSY_CORES = 0.5
INTERVAL = 0.1  # seconds


def sleep_if_busy() -> None:
    """Let threads sleep if others use the cores of this process; has an effect before torch is imported only.

    The environment variables OMP_WAIT_POLICY and GOMP_SPINCOUNT take precedence.
    """
    if not _is_set():
        percents = psutil.cpu_percent(INTERVAL, percpu=True)
        # A scheduler of a cluster gives a process some of the cores; what runs on the others takes nothing from it.
        own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(percents))
        if sum(percent for core, percent in enumerate(percents) if core in own) > 100 * BUSY_CORES:
            os.environ[WAIT_POLICY] = "passive"


def spin_briefly() -> None:
    """Let threads spin for microseconds before they sleep: for programs that may be busy later.

    Has an effect before torch is imported only; the environment takes precedence.
    """
    if not _is_set():
        os.environ[SPIN_COUNT] = str(BRIEF_SPINS)


def _is_set() -> bool:
    return WAIT_POLICY in os.environ or SPIN_COUNT in os.environ
