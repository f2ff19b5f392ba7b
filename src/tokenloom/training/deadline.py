"""The end of a budget, and one look on the way whether it will be kept."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tokenloom.config import TrainConfig

# Kept back for the machine's moods and for what cannot be timed beforehand: plots, report, exit.
RESERVE_SHARE, RESERVE_SECONDS = 0.01, 2.0
WORTH_IT = 0.02  # a smaller change of plan would not be seen
REVIEW_SHARE = 0.4  # of the steps are done, where the schedule does not say when


@dataclass(frozen=True)
class Deadline:
    """When a run shall end (`time.time`), and what its parts cost in seconds when they were timed at the start."""

    at: float
    budget: float
    step_seconds: float
    look_seconds: float
    final_seconds: float

    def is_review_due(self, train: TrainConfig, done: int) -> bool:
        """With wsd at the last step before the decay, which a new plan then leaves whole; or when that time is over."""
        share = 1 - train.decay_fraction if train.schedule == "wsd" else REVIEW_SHARE
        step = train.warmup_steps + int(share * max(0, train.max_steps - train.warmup_steps))
        return done >= step or time.time() > self.at - (1 - share) * self.budget

    def steps_from_now(self, train: TrainConfig, done: int, step_seconds: float | None = None) -> int:
        """Further steps that fit after `done` ones, if each takes `step_seconds` (None: as was timed)."""
        each = step_seconds or self.step_seconds
        slowdown = each / self.step_seconds  # of everything, as far as is known
        reserve = RESERVE_SECONDS + RESERVE_SHARE * self.budget
        left = self.at - time.time() - reserve - slowdown * self.final_seconds
        look = slowdown * self.look_seconds
        if train.eval_interval is not None:
            return int(left / (each + look / train.eval_interval))
        steps = left / each
        for _ in range(3):  # ten looks in all, however many steps there are: those that are left depend on the answer
            steps = max(0.0, left - 10 * look * steps / max(1.0, done + steps)) / each
        return int(steps)
