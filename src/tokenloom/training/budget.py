"""How many steps fit into the time that the user has."""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tokenloom.compute.parallel import World
from tokenloom.errors import UsageError
from tokenloom.training.deadline import Deadline
from tokenloom.training.loop import TrainState, evaluate, generate_samples, train_step
from tokenloom.weights.checkpoint import save_checkpoint

_UNITS = {"s": 1, "m": 60, "h": 3600}
# Timing stops after this share of the budget, or this many seconds: its work is thrown away.
TIMING_SHARE, TIMING_SECONDS = 0.03, 8.0
WARMUP_STEPS, FEWEST_TIMED_STEPS = 2, 3


def parse_budget(text: str) -> float:
    """Seconds in "290s", "5m", "1h30m" or a bare number of seconds; raises `UsageError`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    rebuilt = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _UNITS.get(unit, 1) for number, unit in parts)
    if not parts or rebuilt != re.sub(r"\s", "", text.lower()) or seconds <= 0:
        raise UsageError(f'budget "{text}" is not a length of time. Write for example 290s, 5m or 1h30m.')
    return seconds


def process_start() -> float:
    """When this process began (`time.time`): the user's clock ran while torch was imported."""
    return psutil.Process().create_time()


def plan_steps(trainee: TrainState, deadline: float) -> tuple[int, Deadline]:
    """The updates that fit between now and `deadline` (`time.time`) with all that belongs to them, and what each costs.

    Times a few updates and one evaluation on `trainee`, whose weights are of no use afterwards. Raises `UsageError` if
    there is no time for a single update.
    """
    budget = deadline - time.time()
    costs = Deadline(
        at=deadline,
        budget=budget,
        step_seconds=_median_seconds(lambda number: train_step(trainee, number), budget, trainee.world),
        look_seconds=_seconds(lambda: _look(trainee)),
        final_seconds=_seconds(lambda: evaluate(trainee)),
    )
    steps = costs.steps_from_now(trainee.config.train, 0)
    if steps < 1:
        raise UsageError(
            f"the budget of {budget:.1f} s leaves no time for a single update of {costs.step_seconds:.1f} s beside "
            f"starting, evaluating ({costs.final_seconds:.1f} s) and saving. Give more, or a smaller --preset."
        )
    return steps, costs


def _median_seconds(step: Callable[[int], object], budget: float, world: World) -> float:
    """Median time of a call, after warming up (compilation included)."""
    for number in range(WARMUP_STEPS):
        step(number)
    first = _seconds(lambda: step(WARMUP_STEPS))
    # All processes take part in every update, so they have to agree on how many are timed.
    count = world.broadcast(int(min(TIMING_SHARE * budget, TIMING_SECONDS) / first))
    rest = range(WARMUP_STEPS + 1, WARMUP_STEPS + max(FEWEST_TIMED_STEPS, count))
    return statistics.median([first, *(_seconds(lambda number=number: step(number)) for number in rest)])


def _look(trainee: TrainState) -> None:
    """All that happens at an evaluation, leaving nothing behind."""
    evaluate(trainee, trainee.config.train.eval_batches)
    generate_samples(trainee)
    trainee.run.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=trainee.run.parent, prefix=".timing-") as folder:
        optimizer = trainee.optimizer.state_tensors()
        save_checkpoint(Path(folder), 0, trainee.model, trainee.tokenizer, state={}, optimizer=optimizer)


def _seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before
