"""Threads for work that would block the event loop."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from tokenloom.serving.threads import Threads


def test_results_and_exceptions_reach_the_caller():
    async def run() -> None:
        threads = Threads(2, "test")
        assert await threads.run(lambda: 1) == 1
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)

    asyncio.run(run())


def test_at_most_so_many_functions_run_at_once_also_after_a_cancellation():
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def run() -> None:
        threads = Threads(3, "test")
        calls = [asyncio.create_task(threads.run(work)) for _ in range(12)]
        await asyncio.sleep(0.01)
        for call in calls[:2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(run())
    assert most == 3


def test_a_function_that_does_not_return_keeps_no_process_from_ending():
    program = (
        "import asyncio, time\n"
        "from tokenloom.serving.threads import Threads\n"
        "async def run():\n"
        "    try:\n"
        "        await asyncio.wait_for(Threads(1, 'test').run(lambda: time.sleep(60)), 0.1)\n"
        "    except TimeoutError:\n"
        "        pass\n"
        "asyncio.run(run())\n"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
    assert time.monotonic() - start < 30
