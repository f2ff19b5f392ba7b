"""Threads for work that would block the event loop, and that must not keep the process from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """Runs at most `count` functions at once, each in a daemon thread.

    The interpreter waits for the threads of a `ThreadPoolExecutor` when it exits, here for seconds while a model is
    loaded. A function whose caller was cancelled still counts until it returns, since a thread cannot be stopped.
    """

    def __init__(self, count: int, name: str) -> None:
        self._free = asyncio.Semaphore(count)
        self._name = name

    async def run(self, work: Callable[[], T]) -> T:
        """The result of a function, called in a thread."""
        await self._free.acquire()
        loop, future = asyncio.get_running_loop(), Future[T]()
        future.set_running_or_notify_cancel()

        def call() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._free.release)

        threading.Thread(target=call, name=self._name, daemon=True).start()
        return await asyncio.wrap_future(future)
