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
from tokenloom.training.loop import Trainee, evaluate_now, update, write_samples
from tokenloom.weights.checkpoint import save_checkpoint

_UNITS = {"s": 1, "m": 60, "h": 3600}
# Timing stops after this share of the budget, or this many seconds: its work is thrown away.
TIMING_SHARE, TIMING_SECONDS = 0.03, 8.0
WARMUP_STEPS, FEWEST_TIMED_STEPS = 2, 3
# Kept back for the machine's moods and for what cannot be timed beforehand: plots, report, exit.
RESERVE_SHARE, RESERVE_SECONDS = 0.01, 2.0


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


def steps_within(trainee: Trainee, deadline: float) -> int:
    """Updates that fit between now and `deadline` (`time.time`), evaluations, saving and the report included.

    Times a few updates and one evaluation on `trainee`, whose weights are of no use afterwards. Raises `UsageError` if
    there is no time for a single update.
    """
    budget = deadline - time.time()
    step_seconds = _median_seconds(lambda number: update(trainee, number), budget, trainee.world)
    look_seconds = _seconds(lambda: _look(trainee))
    final_seconds = _seconds(lambda: evaluate_now(trainee))
    train = trainee.config.train
    if train.eval_interval is None:  # ten of them, however many steps there will be
        fixed_seconds = 10 * look_seconds + final_seconds
    else:
        fixed_seconds = final_seconds
        step_seconds += look_seconds / train.eval_interval
    left = deadline - time.time() - fixed_seconds - RESERVE_SECONDS - RESERVE_SHARE * budget
    if left < step_seconds:
        raise UsageError(
            f"the budget ends {step_seconds - left:.1f} s too early for a single update: there is hardly time to "
            "start, evaluate and save. Give more, or a smaller --preset."
        )
    return int(left / step_seconds)


def _median_seconds(step: Callable[[int], object], budget: float, world: World) -> float:
    """Median time of a call, after warming up (compilation included)."""
    for number in range(WARMUP_STEPS):
        step(number)
    first = _seconds(lambda: step(WARMUP_STEPS))
    # All processes take part in every update, so they have to agree on how many are timed.
    count = int(world.agree(str(int(min(TIMING_SHARE * budget, TIMING_SECONDS) / first))))
    rest = range(WARMUP_STEPS + 1, WARMUP_STEPS + max(FEWEST_TIMED_STEPS, count))
    return statistics.median([first, *(_seconds(lambda number=number: step(number)) for number in rest)])


def _look(trainee: Trainee) -> None:
    """All that happens at an evaluation, leaving nothing behind."""
    evaluate_now(trainee, trainee.config.train.eval_batches)
    write_samples(trainee)
    trainee.run.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=trainee.run.parent, prefix=".timing-") as folder:
        optimizer = trainee.optimizer.state_tensors()
        save_checkpoint(Path(folder), 0, trainee.model, trainee.tokenizer, state={}, optimizer=optimizer)


def _seconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before
