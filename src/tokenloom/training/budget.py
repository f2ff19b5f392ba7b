"""How many steps fit into a time budget: parsed, planned from a few measurements, and corrected during the run."""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from tokenloom.config import TrainConfig
from tokenloom.errors import UsageError
from tokenloom.reporting.formatting import counted, duration
from tokenloom.training.display import Display
from tokenloom.training.evaluation import FINAL_SAMPLES, evaluate, generate_samples
from tokenloom.training.saving import write_best, write_checkpoint
from tokenloom.training.step import TrainState, compute_gradient, train_step

_UNITS = {"s": 1, "m": 60, "h": 3600}
# Steps are timed for this share of the budget, or this many seconds: the timed steps are discarded.
TIMING_SHARE, TIMING_SECONDS = 0.03, 8.0
SLOW_STEP_SHARE = 0.2  # of the budget; after a first step that takes longer, no other one is timed
TIMED_TOKENS = 8  # of a sample
# Reserved for changes in speed and for what cannot be timed in advance: plots, report, exit.
RESERVE_SHARE, RESERVE_SECONDS = 0.01, 2.0
FEW_STEPS = 10  # a notice says why fewer are planned
# A budget shorter than this is refused if not even one step fits.
SHORTEST_SECONDS = 30.0
# The plan is reviewed when this share of the steps or of the time that were left at the last review is used up.
REVIEW_SHARE = 0.4
MIN_CHANGE = 0.02  # of the budget; a plan that would end too early or too late by less is not changed

Clock = Callable[[], float]


@dataclass(frozen=True)
class Limit:
    """When a run has to end."""

    deadline: float
    """On the clock of the plan, `time.time` by default."""
    seconds: float
    """The whole budget, of which a part is used up when the plan is made."""
    most_steps: int | None = None
    """Steps after which it ends before its deadline."""


@dataclass(frozen=True)
class TimeBudget:
    """The limit of a run, and the measured cost of its parts in seconds, from the last review of its plan on."""

    limit: Limit
    seconds: float
    """Time left when the run was planned, or its plan was last reviewed."""
    step_seconds: float
    evaluation_seconds: float
    """An evaluation during training, with samples and a checkpoint."""
    final_seconds: float
    """The evaluation after training, on the whole validation text, and the additional samples."""
    step: int = 0
    """Finished steps when the plan was last reviewed."""
    clock: Clock = time.time

    def seconds_left(self) -> float:
        return self.limit.deadline - self.clock()

    def reviewed(self, step: int, step_seconds: float) -> TimeBudget:
        """The budget after `step` finished steps, if a step now takes `step_seconds`, and all else in proportion."""
        slowdown = step_seconds / self.step_seconds
        return replace(
            self,
            seconds=self.seconds_left(),
            step=step,
            step_seconds=step_seconds,
            evaluation_seconds=slowdown * self.evaluation_seconds,
            final_seconds=slowdown * self.final_seconds,
        )

    def steps_left(self, train: TrainConfig, step: int) -> int:
        """How many steps fit after `step` finished ones."""
        available = self.seconds_left() - self._seconds_after_training()
        steps = max(0, int(available / self.step_seconds))
        if self.limit.most_steps is not None:
            steps = min(steps, max(0, self.limit.most_steps - step))
        # The number of evaluations depends on the number of steps, and is not proportional to it.
        while steps > 0:
            evaluations = _evaluations(train.model_copy(update={"max_steps": step + steps}), step)
            if steps * self.step_seconds + evaluations * self.evaluation_seconds <= available:
                break
            steps -= max(1, steps // 1000)
        return steps

    def is_review_due(self, train: TrainConfig, step: int) -> bool:
        """Whether to review the plan after `step` finished steps.

        The distances become shorter, so that there are several reviews in the final phase of the schedule.
        """
        steps = max(1, int(REVIEW_SHARE * (train.max_steps - self.step)))
        seconds = REVIEW_SHARE * (self.seconds - self._seconds_after_training())
        return step - self.step >= steps or self.seconds - self.seconds_left() > seconds

    def _seconds_after_training(self) -> float:
        return RESERVE_SECONDS + RESERVE_SHARE * self.seconds + self.final_seconds


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
    state: TrainState, limit: Limit, *, clock: Clock = time.time, timer: Clock = time.perf_counter
) -> tuple[int, TimeBudget]:
    """The number of steps after which the limit ends (on `clock`), and the budget to review them with.

    Those that `state` has made are included. Times a few steps and parts of an evaluation on it: its weights must be
    discarded afterwards. A plan has at least one more step, unless the limit allows none. Raises `UsageError` if there
    is no time for it and the budget is shorter than `SHORTEST_SECONDS`.
    """
    seconds, step = state.world.broadcast(limit.deadline - clock()), state.counters.step
    may_refuse = limit.seconds < SHORTEST_SECONDS
    if may_refuse and seconds <= 0:
        raise UsageError(
            f"the budget ended {-seconds:.0f} s ago, before training could start. Run the same command again: prepared "
            "data is reused. Or use a longer --budget."
        )
    step_seconds = _step_seconds(state, seconds, timer)
    step_seconds, evaluation_seconds, final_seconds = state.world.broadcast(
        (step_seconds, *_evaluation_seconds(state, timer))
    )
    budget = TimeBudget(
        limit=limit,
        seconds=seconds,
        step_seconds=step_seconds,
        evaluation_seconds=evaluation_seconds,
        final_seconds=final_seconds,
        step=step,
        clock=clock,
    )
    steps = state.world.broadcast(budget.steps_left(state.config.train, step))
    least = 0 if step == limit.most_steps else 1
    if steps < least and may_refuse:
        raise UsageError(
            f"{seconds:.1f} s of the budget are left, too few for a single step of {step_seconds:.1f} s, evaluation "
            f"({evaluation_seconds + final_seconds:.1f} s) and saving. Use a longer --budget"
            + ("." if step else " or a smaller --preset.")
        )
    return step + max(least, steps), budget


def few_steps_notice(max_steps: int, budget: TimeBudget) -> str:
    """Why hardly any steps are planned, which a busy machine or a short budget can cause; empty otherwise."""
    repeat = "run the same command again: prepared data is reused"
    if budget.seconds <= 0:
        return f"preparation has used up the budget: training makes a single step. Use a longer --budget, or {repeat}."
    if max_steps >= FEW_STEPS or max_steps == budget.limit.most_steps:
        return ""
    return (
        f"{duration(budget.seconds)} of the budget are left for {counted(max_steps, 'step')} of "
        f"{budget.step_seconds:.2g} s and for evaluations, of which the last takes "
        f"{duration(budget.evaluation_seconds + budget.final_seconds)}. Use a longer --budget, or {repeat}."
    )


def replan(state: TrainState, budget: TimeBudget, step_seconds: float, display: Display) -> TimeBudget:
    """Change the number of steps if the planned ones would end too early or too late; returns the budget from here on.

    `step_seconds` is the mean since the last review. If no more steps fit, this one becomes the last. Rank 0 decides.
    """
    train, step = state.config.train, state.counters.step
    budget = budget.reviewed(step, step_seconds)
    max_steps = step + budget.steps_left(train, step)
    is_small = abs(max_steps - train.max_steps) * step_seconds <= MIN_CHANGE * budget.limit.seconds
    max_steps = state.world.broadcast(train.max_steps if is_small else max_steps)
    if max_steps != train.max_steps:
        display.notice(
            f"at {step_seconds:.2g} s a step, {max_steps:,} steps fit into the time instead of {train.max_steps:,}"
        )
        earlier = (*train.earlier_max_steps, (step, train.max_steps))
        state.change_settings(max_steps=max_steps, earlier_max_steps=earlier)
        display.replanned(max_steps)
    return budget


def estimate_seconds(state: TrainState) -> float:
    """Estimated training time from here on, from the gradient of one step; nothing is updated.

    The first step of a process is slow, and may compile the model. Therefore a second one is timed, unless the first
    was not compiled and took more than a second.
    """
    seconds = _seconds(lambda: _compute_gradient(state), time.perf_counter)
    if state.world.broadcast(bool(state.config.train.compile) or seconds <= 1):  # computing a gradient is collective
        seconds = min(seconds, _seconds(lambda: _compute_gradient(state), time.perf_counter))
    state.optimizer.zero_grad()
    return seconds * (state.config.train.max_steps - state.counters.step)


def _compute_gradient(state: TrainState) -> None:
    compute_gradient(state, state.counters.step)
    state.runtime.synchronize()


def _evaluations(train: TrainConfig, step: int) -> int:
    """The number of evaluations after `step` finished steps; the last step always has one."""
    every, last = train.eval_every, train.max_steps
    return last // every - step // every + (last % every > 0)


def _step_seconds(state: TrainState, seconds: float, timer: Clock) -> float:
    """Median time of a step without the first one, which includes warmup and compilation; `seconds` are left."""
    limit = min(TIMING_SHARE * seconds, TIMING_SECONDS)
    times: list[float] = []

    def needs_another() -> bool:
        if len(times) == 1:
            return bool(state.config.train.compile) or times[0] < SLOW_STEP_SHARE * seconds
        return not times or sum(times[1:]) + times[-1] <= limit

    while state.world.broadcast(needs_another()):  # a step is collective, so every process has to time the same number
        times.append(_seconds(lambda: train_step(state, state.counters.step + len(times)), timer))
    return statistics.median(times[1:] or times)


def _evaluation_seconds(state: TrainState, timer: Clock) -> tuple[float, float]:
    """Time of an evaluation during training, with samples and checkpoints, and of what is added after training.

    Both are estimated from one batch of validation windows and the first tokens of the samples.
    """
    during, final = 0.0, 0.0
    if state.validation is not None:
        evaluate(state, 1)  # warmup
        before = timer()
        measurement = evaluate(state, 1)
        seconds_per_token = (timer() - before) / (measurement.tokens if measurement else 1)
        tokens = len(state.validation) - 1
        final = seconds_per_token * tokens
        batches = state.config.train.eval_batches
        during = final if batches is None else seconds_per_token * min(tokens, batches * state.tokens_per_step)
    sample_tokens = state.config.sample.max_new_tokens
    timed = min(TIMED_TOKENS, sample_tokens)
    if timed > 0:
        generate_samples(state, max_new_tokens=1)  # warmup
        sample_seconds = _seconds(lambda: generate_samples(state, max_new_tokens=timed), timer) * sample_tokens / timed
        during += sample_seconds
        if state.config.sample.temperature > 0:  # greedy decoding has a single result
            final += (FINAL_SAMPLES - 1) * sample_seconds
    return during + _seconds(lambda: _write_discarded_checkpoint(state), timer), final


def _write_discarded_checkpoint(state: TrainState) -> None:
    folder = Path(state.world.on_main(lambda: _temporary_folder(state.run.path.parent)))
    try:
        write_checkpoint(state, folder)
        write_best(state, folder)
    finally:
        if state.world.is_main:
            shutil.rmtree(folder, ignore_errors=True)


def _temporary_folder(parent: Path) -> str:
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(dir=parent, prefix=".timing-")


def _seconds(work: Callable[[], object], timer: Clock) -> float:
    before = timer()
    work()
    return timer() - before
