"""The training loop: train, record, evaluate, sample and save, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

from tokenloom.errors import DivergedError, Interrupted
from tokenloom.evaluation.measurement import Measurement
from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.messages import resume_command
from tokenloom.training.budget import TimeBudget, replan
from tokenloom.training.display import Display
from tokenloom.training.evaluation import FINAL_SAMPLES, evaluate, generate_samples
from tokenloom.training.interrupt import StopRequest, received_in
from tokenloom.training.metrics_log import MetricsLog
from tokenloom.training.resuming import is_out_of_patience
from tokenloom.training.saving import save, save_best
from tokenloom.training.schedule import settings_at
from tokenloom.training.step import StepResult, TrainState, train_step


def train_loop(
    state: TrainState,
    log: MetricsLog | None,
    display: Display,
    stop: StopRequest,
    budget: TimeBudget | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> None:
    """Train up to `max_steps`, which is reviewed on the way if there is a budget. `log` is None on all ranks but 0.

    All ranks make the same decisions: the signals that any of them has received and whether rank 0 wants to review the
    plan are summed in the reduction of each step, and validation losses are those of all ranks.

    Does nothing if the checkpoint is that of the last step: the run was stopped in its final evaluation. Raises
    `Interrupted` when a stop was requested, after saving a checkpoint, and `DivergedError` when the loss or the
    gradient is not finite; the weights are not updated in that case, and the last record states them.
    """
    counters = state.counters
    stopwatch = Stopwatch(counters.seconds, timer)

    def votes() -> list[float]:
        due = budget is not None and state.world.is_main and budget.is_review_due(state.config.train, counters.step + 1)
        return [float(due), *stop.votes()]

    while counters.step < state.config.train.max_steps and not is_out_of_patience(state.config.train, counters):
        try:
            with stopwatch.training():
                result = train_step(state, counters.step, votes)
                state.runtime.synchronize()
        except DivergedError as error:
            if log is not None:  # so that readers of the run know why it ended
                log.record(_diverged_record(state, error, stopwatch))
            raise
        counters.step += 1
        counters.tokens += state.tokens_per_step
        counters.unreported_nats += result.nats
        counters.unreported_tokens += state.tokens_per_step
        tokens_per_sec = state.tokens_per_step / stopwatch.last
        display.stepped(counters.step, result.nats / state.tokens_per_step, tokens_per_sec)

        is_review_due, *stop_votes = result.votes
        received = received_in(stop_votes)
        if budget is not None and is_review_due:
            budget = replan(state, budget, stopwatch.mean_of_last(counters.step - budget.step), display)
        train = settings_at(counters.step, state.config.train)
        finished = counters.step == train.max_steps
        should_log = finished or counters.step % train.log_interval == 0
        should_evaluate = finished or counters.step % train.eval_every == 0

        measurement = evaluate(state, train.eval_batches) if should_evaluate else None
        if measurement is not None and _update_best(state, measurement):
            save_best(state)
        counters.seconds = stopwatch.total()
        if should_log or measurement is not None:
            record = _record(state, measurement)
            if should_log:
                record = _with_training_metrics(record, state, result, stopwatch)
            if log is not None:
                log.record(record)
                display.recorded(record)
            # In every process: those of a sharded model compute each token together.
            for sample in generate_samples(state, count=FINAL_SAMPLES if finished else 1) if should_evaluate else []:
                if log is not None:
                    log.sample(sample)
                    display.sampled(sample)

        out_of_patience = should_evaluate and is_out_of_patience(train, counters)
        if should_evaluate:  # it took longer than a step, and so does saving
            received = received or stop.agreed(state.world)
        if finished or out_of_patience or received or counters.step % train.save_every == 0:
            save(state, display)
            received = received or stop.agreed(state.world)
        if out_of_patience:
            display.notice(f"stopped early: no better validation loss in {train.patience} evaluations")
            return
        if received:
            raise Interrupted(
                f"stopped at step {counters.step:,} of {train.max_steps:,} after saving a checkpoint. "
                f"Resume with: {resume_command(state.run.path)}",
                received,
            )


class Stopwatch:
    """Measures training time apart from everything else, because throughput is tokens over training time only."""

    def __init__(self, seconds_before: float = 0.0, timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer = timer
        self._started = timer() - seconds_before
        self._since_taken = 0.0
        self._steps: list[float] = []

    @contextmanager
    def training(self) -> Generator[None]:
        """Measure one training step."""
        before = self._timer()
        yield
        self._steps.append(self._timer() - before)
        self._since_taken += self.last

    @property
    def last(self) -> float:
        """Seconds of the last step."""
        return self._steps[-1]

    def mean_of_last(self, count: int) -> float:
        """Mean seconds of the last `count` steps, without the very first one, which includes warmup and compilation."""
        steps = (self._steps[1:] or self._steps)[-count:]
        return sum(steps) / len(steps)

    def take_training(self) -> float:
        """Seconds of training since the previous call."""
        seconds, self._since_taken = self._since_taken, 0.0
        return seconds

    def total(self) -> float:
        """Seconds of the run so far, earlier sessions included."""
        return self._timer() - self._started


def _update_best(state: TrainState, measurement: Measurement) -> bool:
    """Whether the validation loss is the lowest so far; updates the counters that depend on it."""
    counters = state.counters
    if counters.best_val_loss is None or measurement.loss < counters.best_val_loss:
        counters.best_step, counters.best_val_loss = counters.step, measurement.loss
        counters.evaluations_without_gain = 0
        return True
    counters.evaluations_without_gain += 1
    return False


def _record(state: TrainState, measurement: Measurement | None) -> MetricsRecord:
    targets = len(state.validation) - 1 if state.validation is not None else 0
    return MetricsRecord(
        step=state.counters.step,
        tokens=state.counters.tokens,
        epoch=state.batches.epoch(state.counters.step),
        seconds=state.counters.seconds,
        val_loss=measurement.loss if measurement else None,
        val_perplexity=measurement.perplexity if measurement else None,
        val_bits_per_byte=measurement.bits_per_byte if measurement else None,
        val_share=measurement.tokens / targets if measurement else None,
    )


def _diverged_record(state: TrainState, error: DivergedError, stopwatch: Stopwatch) -> MetricsRecord:
    """The record of a step that could not be finished; a resumed run removes it."""
    counters = state.counters
    return MetricsRecord(
        step=counters.step + 1,
        tokens=counters.tokens + state.tokens_per_step,
        epoch=state.batches.epoch(counters.step + 1),
        seconds=stopwatch.total(),
        train_loss=error.loss,
        grad_norm=error.grad_norm,
    )


def _with_training_metrics(
    record: MetricsRecord, state: TrainState, result: StepResult, stopwatch: Stopwatch
) -> MetricsRecord:
    """Add what was measured while training; resets the sums since the previous record."""
    counters = state.counters
    loss = counters.unreported_nats / counters.unreported_tokens
    tokens_per_sec = counters.unreported_tokens / max(stopwatch.take_training(), 1e-9)
    counters.unreported_nats, counters.unreported_tokens = 0.0, 0
    return replace(
        record,
        train_loss=loss,
        lr=result.lr,
        muon_lr=result.muon_lr,
        grad_norm=result.grad_norm,
        tokens_per_sec=tokens_per_sec,
        mfu=tokens_per_sec * state.flops_per_token / (state.peak_flops * state.world.world_size),
    )
