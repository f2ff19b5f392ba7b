"""The result of a search: its trials from best to worst, the importance of each setting, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from tokenloom.tuning.space import Value, flag_name

TrialState = Literal["finished", "pruned", "diverged", "failed", "interrupted"]
_ORDER: Mapping[TrialState, int] = {"finished": 0, "pruned": 1, "diverged": 2, "failed": 2, "interrupted": 3}


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial: the settings it tried, and how far it came."""

    number: int
    run: str
    """The folder of its run, which a failed trial may lack."""
    state: TrialState
    """An interrupted trial is repeated as another one and does not count."""
    val_bits_per_byte: float | None = None
    """On the whole validation text if the trial is finished, otherwise that of its last evaluation."""
    settings: Mapping[str, Value]
    steps: int = 0
    seconds: float = 0.0
    message: str | None = None
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """A search so far."""

    out: str
    trials_planned: int
    seed: int
    """Of the search and of every trial."""
    trials: Sequence[TrialResult]
    """From the best to the worst."""
    importance: Mapping[str, float]
    """Share of each setting in what separates good trials from others, by PED-ANOVA; empty if there are too few."""
    command: str | None = None
    """Trains the best trial longer."""

    @property
    def best(self) -> TrialResult | None:
        """The best finished trial."""
        return next((trial for trial in self.trials if trial.state == "finished"), None)

    @property
    def ended(self) -> int:
        """Trials that count: all but interrupted ones."""
        return sum(trial.state != "interrupted" for trial in self.trials)

    def to_json(self) -> dict[str, object]:
        """The result as `--json` prints it."""
        best = self.best
        return {**asdict(self), "best": None if best is None else best.number}


def ranked(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Finished trials by their value, then pruned ones by their last value, then all others."""

    def order(trial: TrialResult) -> tuple[int, float, int]:
        value = trial.val_bits_per_byte
        return _ORDER[trial.state], math.inf if value is None or math.isnan(value) else value, trial.number

    return sorted(trials, key=order)


def settings_text(settings: Mapping[str, Value]) -> str:
    """Settings in one line: train.learning-rate 0.0012, model.n-layer 4."""
    return ", ".join(f"{flag_name(key)} {value_text(value)}" for key, value in settings.items())


def value_text(value: Value) -> str:
    """A value in a few characters."""
    if value is None:
        return "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
