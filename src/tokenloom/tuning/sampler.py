"""Suggestions that do not repeat a combination of values which was tried already."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from tokenloom.tuning.space import Space, Value, combinations

ATTEMPTS = 20


class UntriedSampler(BaseSampler):
    """TPE, which draws again while it suggests what was tried; then the first combination that was not.

    TPE draws each setting by itself, so from a few choices it soon draws the same combination again. Source: Bergstra
    et al. 2011, "Algorithms for Hyper-Parameter Optimization".
    """

    def __init__(
        self,
        tpe: TPESampler,
        space: Space,
        distributions: Mapping[str, BaseDistribution],
        tried: Collection[Mapping[str, Value]],
    ) -> None:
        self._tpe, self._space, self._distributions, self._tried = tpe, space, distributions, tried

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._distributions)  # all of them are drawn by `sample_relative`

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        suggested: dict[str, Any] = {}
        for _ in range(ATTEMPTS):
            suggested = {
                name: self.sample_independent(study, trial, name, distribution)
                for name, distribution in search_space.items()
            }
            if suggested not in self._tried:
                return suggested
        return next((each for each in combinations(self._space) if each not in self._tried), suggested)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._tpe.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._tpe.after_trial(study, trial, state, values)
