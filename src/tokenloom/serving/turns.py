"""Turns in the event loop: few tasks continue in each of its iterations, so that a short request is answered soon."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets at most `count` of the tasks that wait continue in an iteration of the event loop, in their order.

    The loop runs every task that is ready before it reads from sockets again: with 64 streams that all have something
    to write, a request that needs a millisecond would wait for all of them, several times.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for a turn."""
        turn = asyncio.get_running_loop().create_future()
        self.give(turn)
        await turn

    def give(self, turn: asyncio.Future[None]) -> None:
        """Let the task that waits for a future continue when it is its turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._give_some)
        self._waiting.append(turn)

    def _give_some(self) -> None:
        given = 0
        while self._waiting and given < self._count:
            turn = self._waiting.popleft()
            if not turn.done():  # the task was cancelled meanwhile
                turn.set_result(None)
                given += 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._give_some)
