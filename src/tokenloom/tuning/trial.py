"""A trial: a run with the settings that the study suggests, stopped early if its validation loss is not promising."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenloom.config import Config
from tokenloom.data.prepare import prepare_cached
from tokenloom.errors import DivergedError, Interrupted, TokenloomError, UsageError, is_out_of_memory
from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.progress import byte_progress
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunPlan, RunSummary
from tokenloom.training.budget import Limit
from tokenloom.training.display import QuietDisplay
from tokenloom.training.run import train_run
from tokenloom.tuning.result import TrialState

if TYPE_CHECKING:
    import optuna

TENTHS = 10


class PrunedError(Exception):
    """The trial is not worth finishing."""


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended."""

    state: TrialState
    steps: int
    seconds: float
    val_bits_per_byte: float | None = None
    """On the whole validation text; None unless it is finished."""
    message: str | None = None


class TrialDisplay(QuietDisplay):
    """Reports the evaluations of a run to the study; raises `PrunedError` to end the run.

    Trials make different numbers of steps in the same budget, so they are compared at each tenth of their own steps,
    where their learning rate schedules are equally far.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._max_steps = 1
        self._last_tenth = 0
        self.steps, self.seconds = 0, 0.0

    def started(self, plan: RunPlan) -> None:
        self._max_steps = plan.max_steps

    def replanned(self, max_steps: int) -> None:
        self._max_steps = max_steps

    def recorded(self, record: MetricsRecord) -> None:
        self.steps, self.seconds = record.step, record.seconds
        tenth = round(TENTHS * record.step / self._max_steps)
        if record.val_bits_per_byte is None or not self._last_tenth < tenth < TENTHS:
            return
        self._last_tenth = tenth
        self._trial.report(record.val_bits_per_byte, tenth)
        if self._trial.should_prune():
            raise PrunedError


def run_trial(
    trial: optuna.Trial, config: Config, run: RunFolder, seconds: float | None, most_steps: int | None, *, quiet: bool
) -> TrialEnd:
    """Train a trial for so many seconds or steps, without the time to prepare its text.

    What is wrong with its settings, or a loss that is not finite, ends the trial only. Raises `Interrupted`.
    """
    display = TrialDisplay(trial)

    def end(state: TrialState, message: str | None = None) -> TrialEnd:
        return TrialEnd(state, display.steps, display.seconds, message=message)

    try:
        summary = _train(config, run, display, seconds, most_steps, quiet=quiet)
    except PrunedError:
        return end("pruned")
    except Interrupted:
        raise
    except DivergedError as error:
        return end("diverged", str(error))
    except TokenloomError as error:
        return end("failed", str(error))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return end("failed", "out of memory")
    finally:
        gc.collect()  # the model of a trial that ended by an exception is part of a cycle
    value = summary.val_bits_per_byte
    if value is None or not math.isfinite(value):  # the last step has no next one, whose loss would show it
        return end("diverged", "the validation loss is not finite after the last step")
    return TrialEnd("finished", display.steps, summary.seconds or 0.0, value)


def _train(
    config: Config,
    run: RunFolder,
    display: TrialDisplay,
    seconds: float | None,
    most_steps: int | None,
    *,
    quiet: bool,
) -> RunSummary:
    if quiet:
        shards = prepare_cached(config.data)
    else:
        with byte_progress() as progress:
            shards = prepare_cached(config.data, progress=progress)
    if shards.val.n_tokens <= 1:
        raise UsageError("a search needs validation text to compare trials. Use a longer text or --val-fraction 0.1.")
    limit = None if seconds is None else Limit(time.time() + seconds, seconds, most_steps)
    summary = train_run(config, shards, lambda: run, limit=limit, display=display)
    assert summary is not None  # one process trains
    if summary.val_bits_per_byte is None:
        raise UsageError("the tokenizer has no byte lengths, so trials have no bits per byte. Use another tokenizer.")
    return summary
