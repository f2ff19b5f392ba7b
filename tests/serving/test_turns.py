"""Turns in the event loop."""

import asyncio
from collections import Counter

from tokenloom.serving.turns import Turns


async def iterations_of(count: int, tasks: int) -> list[int]:
    """In which iteration of the loop each of many tasks gets its turn, in the order of the tasks."""
    turns, iteration, got = Turns(count), 0, dict[int, int]()

    async def take(number: int) -> None:
        await turns.wait()
        got[number] = iteration

    running = [asyncio.create_task(take(number)) for number in range(tasks)]
    while len(got) < tasks:
        await asyncio.sleep(0)
        iteration += 1
    await asyncio.gather(*running)
    assert list(got) == list(range(tasks))
    return list(got.values())


def test_few_tasks_continue_in_an_iteration_and_in_their_order():
    iterations = asyncio.run(iterations_of(3, 20))
    assert max(Counter(iterations).values()) == 3
    assert iterations[-1] - iterations[0] == 6


def test_a_task_that_is_cancelled_takes_no_turn_and_keeps_nobody_waiting():
    async def run() -> None:
        turns = Turns(1)
        first, second = (asyncio.create_task(turns.wait()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, 5)
        await asyncio.wait_for(turns.wait(), 5)
        assert first.cancelled()

    asyncio.run(run())


def test_what_arrives_while_the_turns_are_taken_waits_for_the_next():
    async def run() -> None:
        turns = Turns(2)
        for _ in range(3):
            await asyncio.gather(*(turns.wait() for _ in range(5)))

    asyncio.run(asyncio.wait_for(run(), 5))
