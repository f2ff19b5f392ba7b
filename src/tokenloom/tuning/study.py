"""The study: which settings to try next, and whether a trial is worth finishing. Optuna decides; its journal is a file.

A suggestion is a function of the seed and of the trials that have ended, so a search that was interrupted suggests what
it would have suggested without the interruption.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tokenloom.errors import CheckpointError, MissingExtraError
from tokenloom.tuning.folder import SearchFolder
from tokenloom.tuning.result import TrialResult
from tokenloom.tuning.space import Candidates, Choices, Space, Value

if TYPE_CHECKING:
    import optuna

NAME = "tokenloom"
RESULT = "result"  # the user attribute of a trial
# TPE needs some random trials before it can model them. Its own default, 10, is most of a small search.
STARTUP_TRIALS = 5
# No trial is pruned before so many have finished, nor before its third tenth, when losses have separated.
UNPRUNED_TRIALS, FIRST_PRUNED_TENTH = 4, 3
# "Good" trials are the best third; with the evaluator's own default, a tenth, a small search has a single one.
GOOD_SHARE = 1 / 3
FEWEST_FOR_IMPORTANCE = 4


class Study:
    """The trials of a search, in the journal of its folder.

    Raises `MissingExtraError` without Optuna, and `CheckpointError` if the journal is invalid.
    """

    def __init__(self, folder: SearchFolder, space: Space, seed: int) -> None:
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
        except ImportError:
            raise MissingExtraError("optuna", "tune", "tokenloom search") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # the search has its own lines
        folder.mend_journal()
        journal = str(folder.journal_file)
        self._folder, self._space, self._seed = folder, space, seed
        try:
            self._study = optuna.create_study(
                study_name=NAME,
                # Not the default lock, a symbolic link, which Windows reserves to administrators.
                storage=JournalStorage(JournalFileBackend(journal, JournalFileOpenLock(journal))),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=FIRST_PRUNED_TENTH),
                load_if_exists=True,
            )
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder.journal_file} is invalid: {error}. Restore it, or choose another --out."
            ) from None
        for trial in self._study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self.interrupted(trial.number + 1)  # by a process that was killed: this one holds the lock

    def ask(self) -> tuple[optuna.Trial, dict[str, Value]]:
        """The next trial, and the settings it tries by their keys: never the same twice, unless all were tried."""
        import optuna

        from tokenloom.tuning.sampler import UntriedSampler

        tried = [trial.settings for trial in self.trials() if trial.state != "interrupted"]
        seed = int(np.random.SeedSequence([self._seed, len(tried)]).generate_state(1)[0])
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        distributions = {key: _distribution(candidates) for key, candidates in self._space.items()}
        self._study.sampler = UntriedSampler(tpe, self._space, distributions, tried)
        trial = self._study.ask(distributions)
        return trial, {key: _value(self._space[key], value) for key, value in trial.params.items()}

    def tell(self, trial: optuna.Trial, result: Mapping[str, object], value: float | None) -> None:
        """Record the end of a trial; `value` is its validation loss in bits per byte, None if it did not finish."""
        from optuna.trial import TrialState

        trial.set_user_attr(RESULT, dict(result))
        # One that failed or diverged is stored as pruned too: Optuna ignores failures, and would suggest them again.
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(trial, value, state=state)

    def interrupted(self, number: int) -> None:
        """Mark a running trial, counted from 1, as interrupted; its settings are tried again before any other."""
        from optuna.trial import TrialState

        trial = self._study.trials[number - 1]
        self._study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            self._study.enqueue_trial(trial.params)

    def trials(self) -> list[TrialResult]:
        """All trials but the one that is running, in their order."""
        from optuna.trial import TrialState

        known = [trial for trial in self._study.trials if trial.state.is_finished()]
        results: list[TrialResult] = []
        for trial in known:
            saved = cast("dict[str, Any]", trial.user_attrs.get(RESULT, {"state": "interrupted"}))
            values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
            last = values[-1] if values else None
            results.append(
                TrialResult(
                    **saved,
                    number=trial.number + 1,
                    run=str(self._folder.run(trial.number + 1).path),
                    val_bits_per_byte=trial.value if trial.state == TrialState.COMPLETE else last,
                    settings={key: _value(self._space[key], value) for key, value in trial.params.items()},
                )
            )
        return results

    def importance(self) -> dict[str, float]:
        """The share of each setting in what separates the best third from all trials; empty if too few have finished.

        By PED-ANOVA (Watanabe et al., 2023), which unlike fANOVA needs no scikit-learn.
        """
        import optuna

        values = {trial.val_bits_per_byte for trial in self.trials() if trial.state == "finished"}
        if len(values) < FEWEST_FOR_IMPORTANCE:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=GOOD_SHARE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings that did not vary: their share is 0
            return optuna.importance.get_param_importances(self._study, evaluator=evaluator)


def _distribution(candidates: Candidates) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(candidates, Choices):
        return CategoricalDistribution(candidates.values)
    if isinstance(candidates.low, int) and isinstance(candidates.high, int):
        return IntDistribution(candidates.low, candidates.high, log=candidates.log)
    return FloatDistribution(candidates.low, candidates.high, log=candidates.log)


def _value(candidates: Candidates, value: Value) -> Value:
    """A suggested value in its own type: the journal is JSON, which has one type of numbers."""
    if isinstance(candidates, Choices):
        return candidates.values[candidates.values.index(value)]
    return value
