"""How many steps fit into a time budget: parsed, planned from measured times, and replanned once during the run."""

from __future__ import annotations

import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tokenloom.compute.parallel import World
from tokenloom.config import TrainConfig
from tokenloom.errors import UsageError
from tokenloom.training.display import Display
from tokenloom.training.evaluation import evaluate, generate_samples
from tokenloom.training.saving import write_checkpoint
from tokenloom.training.step import TrainState, compute_gradient, train_step

_UNITS = {"s": 1, "m": 60, "h": 3600}
# Timing stops after this share of the budget, or this many seconds: the timed steps are discarded.
TIMING_SHARE, TIMING_SECONDS = 0.03, 8.0
WARMUP_STEPS, MIN_TIMED_STEPS = 2, 3
# Reserved for changes in speed and for what cannot be timed in advance: plots, report, exit.
RESERVE_SHARE, RESERVE_SECONDS = 0.01, 2.0
EVALUATIONS = 10  # of a run, if no interval is set
REVIEW_SHARE = 0.4  # of the steps, after which the plan is reviewed if the schedule has no decay phase
MIN_CHANGE = 0.02  # of the steps; a smaller correction is not worth a notice

Clock = Callable[[], float]


@dataclass(frozen=True)
class TimeBudget:
    """When a run has to end, and the measured cost of its parts in seconds."""

    deadline: float
    """On `clock`."""
    seconds: float
    """Time left when the run was planned."""
    step_seconds: float
    evaluation_seconds: float
    """An evaluation during training, with samples and a checkpoint."""
    final_seconds: float
    """The evaluation after training, on the whole validation text."""
    clock: Clock = time.time

    def seconds_left(self) -> float:
        return self.deadline - self.clock()

    def steps_left(self, train: TrainConfig, step: int, step_seconds: float | None = None) -> int:
        """How many steps fit after `step` finished ones, at `step_seconds` each (None: as measured)."""
        step_seconds = step_seconds or self.step_seconds
        slowdown = step_seconds / self.step_seconds  # assumed to be the same for everything else
        reserve = RESERVE_SECONDS + RESERVE_SHARE * self.seconds
        available = self.seconds_left() - reserve - slowdown * self.final_seconds
        evaluation_seconds = slowdown * self.evaluation_seconds
        if train.eval_interval is not None:
            return int(available / (step_seconds + evaluation_seconds / train.eval_interval))
        steps = available / step_seconds
        # A run has a fixed number of evaluations; how many of them are left depends on the number of steps.
        for _ in range(3):
            evaluations = EVALUATIONS * steps / max(1.0, step + steps)
            steps = max(0.0, available - evaluations * evaluation_seconds) / step_seconds
        return int(steps)

    def is_review_due(self, train: TrainConfig, step: int) -> bool:
        """Whether to review the plan after `step` finished steps.

        With wsd, after the last step before the decay, so that the decay phase of the new plan is complete; with other
        schedules after a fixed share of the steps. In either case at once if that share of the time is used up.
        """
        share = 1 - train.decay_fraction if train.schedule == "wsd" else REVIEW_SHARE
        review_step = train.warmup_steps + int(share * max(0, train.max_steps - train.warmup_steps))
        return step >= review_step or self.seconds_left() < (1 - share) * self.seconds


def parse_budget(text: str) -> float:
    """Seconds in "290s", "5m", "1h30m" or a bare number of seconds; raises `UsageError`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip().lower())
    matched = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _UNITS.get(unit, 1) for number, unit in parts)
    if not parts or matched != re.sub(r"\s", "", text.lower()) or seconds <= 0:
        raise UsageError(f'budget "{text}" is not a duration. Write it as 290s, 5m or 1h30m.')
    return seconds


def process_start() -> float:
    """When this process started (`time.time`). A budget includes the seconds in which torch is imported."""
    return psutil.Process().create_time()


def plan_steps(
    state: TrainState, deadline: float, *, clock: Clock = time.time, timer: Clock = time.perf_counter
) -> tuple[int, TimeBudget]:
    """The number of steps that fit between now and `deadline` (on `clock`), and the budget to review them with.

    Times a few steps and one evaluation on `state`, whose weights must be discarded afterwards. Raises `UsageError`
    if there is no time for a single step.
    """
    seconds = deadline - clock()
    budget = TimeBudget(
        deadline=deadline,
        seconds=seconds,
        step_seconds=_median_seconds(lambda step: train_step(state, step), seconds, state.world, timer),
        evaluation_seconds=_seconds(lambda: _evaluate_and_save(state), timer),
        final_seconds=_seconds(lambda: evaluate(state), timer),
        clock=clock,
    )
    steps = state.world.broadcast(budget.steps_left(state.config.train, 0))
    if steps < 1:
        raise UsageError(
            f"the budget of {seconds:.1f} s is too short for a single step of {budget.step_seconds:.1f} s besides "
            f"startup, evaluation ({budget.final_seconds:.1f} s) and saving. Use a longer --budget or a smaller "
            "--preset."
        )
    return steps, budget


def is_review_due(state: TrainState, budget: TimeBudget) -> bool:
    """`TimeBudget.is_review_due` on rank 0, in every process."""
    return state.world.broadcast(budget.is_review_due(state.config.train, state.counters.step))


def replan(state: TrainState, budget: TimeBudget, step_seconds: float, display: Display) -> None:
    """Change the number of steps if steps have become slower or faster than they were when the run was planned."""
    step, planned = state.counters.step, state.config.train.max_steps
    steps_left = budget.steps_left(state.config.train, step, step_seconds)
    max_steps = state.world.broadcast(step + max(1, steps_left))
    if abs(max_steps - planned) > MIN_CHANGE * planned:
        change = "slower" if max_steps < planned else "faster"
        display.notice(
            f"a step takes {step_seconds:.2g} s, {change} than planned: {max_steps:,} steps instead of {planned:,}"
        )
        state.set_max_steps(max_steps)
        display.replanned(max_steps)


def estimate_seconds(state: TrainState) -> float:
    """Estimated training time from here on, from the gradient of one step; nothing is updated.

    The first step of a process is slow, so a fast one is timed twice.
    """
    seconds = math.inf
    for _ in range(2):
        seconds = min(seconds, _seconds(lambda: _compute_gradient(state), time.perf_counter))
        if state.world.broadcast(seconds > 1):  # computing a gradient is collective
            break
    state.optimizer.zero_grad()
    return seconds * (state.config.train.max_steps - state.counters.step)


def _compute_gradient(state: TrainState) -> None:
    compute_gradient(state, state.counters.step)
    state.runtime.synchronize()


def _median_seconds(step: Callable[[int], object], budget: float, world: World, timer: Clock) -> float:
    """Median time of a call after warmup, which includes compilation."""
    for number in range(WARMUP_STEPS):
        step(number)
    first = _seconds(lambda: step(WARMUP_STEPS), timer)
    # A step is collective, so every process has to time the same number.
    count = world.broadcast(int(min(TIMING_SHARE * budget, TIMING_SECONDS) / first))
    rest = range(WARMUP_STEPS + 1, WARMUP_STEPS + max(MIN_TIMED_STEPS, count))
    return statistics.median([first, *(_seconds(lambda number=number: step(number), timer) for number in rest)])


def _evaluate_and_save(state: TrainState) -> None:
    """All the work of an evaluation during training, without leaving any files."""
    evaluate(state, state.config.train.eval_batches)
    generate_samples(state)
    parent = state.run.path.parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".timing-") as folder:
        write_checkpoint(state, Path(folder))


def _seconds(work: Callable[[], object], timer: Clock) -> float:
    before = timer()
    work()
    return timer() - before
