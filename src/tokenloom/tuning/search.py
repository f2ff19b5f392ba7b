"""A hyper-parameter search from its arguments to its table, plot and best configuration."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tokenloom.compute.parallel import launched_processes
from tokenloom.config import Settings
from tokenloom.config_files import dump_toml
from tokenloom.data.sources import folder_name, source_notices
from tokenloom.errors import ConfigError, Interrupted, TrainingError, UsageError
from tokenloom.reporting.formatting import counted, duration
from tokenloom.reporting.search_plot import PlottedTrial, plot_search
from tokenloom.storage import write_json, write_text
from tokenloom.tuning.folder import SearchFolder
from tokenloom.tuning.plan import Plan, make_request, new_plan, saved_plan
from tokenloom.tuning.result import SearchResult, TrialResult, ranked, settings_text
from tokenloom.tuning.space import Choices, Value, flag_name, number_of_combinations
from tokenloom.tuning.study import Study
from tokenloom.tuning.trial import TrialEnd, run_trial

if TYPE_CHECKING:
    import optuna

SEARCHES = Path("searches")
"""Parent of the folders that are not named by `out`."""
LONGER = 10  # times the steps of the best trial, in the command that continues from a search
# If so many trials fail and none succeeds, the fault is in what they share.
MOST_FAILURES_AT_FIRST = 3


def search(
    *sources: str | Path,
    tries: Mapping[str, str | Sequence[Value]] | None = None,
    trials: int | None = None,
    budget: str | float | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    settings: Settings | None = None,
    progress: Callable[[str], None] | None = None,
) -> SearchResult:
    """Search for the settings with which a model trains best: the lowest bits per byte on the validation text.

    `tries` has what to try for each setting: `{"train.learning_rate": "1e-4..1e-2:log", "model.n_layer": "2..6",
    "train.weight_decay": [0.01, 0.1]}`. Each of `trials` trials (default 12) is a run in the folder `out`, within
    `budget` (default: a minute, unless `max_steps` is set); one that is not promising is stopped early. No combination
    of values is tried twice, so there are at most as many trials as combinations. Everything else is as in `train`; the
    seed of the runs is also that of the search.

    A folder that has the same search already is continued up to `trials` trials, and so is the one that `resume` names,
    without further arguments. `progress` is called with lines of text. Raises `TokenloomError`, and
    `MissingExtraError` without Optuna.
    """
    if launched_processes() > 1:
        raise UsageError("a search trains in one process, so torchrun cannot start it. Use the command alone.")
    notify = progress or _ignore
    if resume is not None:
        folder = SearchFolder(Path(resume))
        plan, notices = saved_plan(folder, trials), list[str]()
    else:
        request, space = make_request(sources, tries or {}, preset, config, settings, budget)
        name = str(sources[0]) if sources else "python-docs"
        folder = SearchFolder(Path(out) if out is not None else SEARCHES / (folder_name(name) or "search"))
        if folder.record() is not None:
            plan, notices = saved_plan(folder, trials, request), list[str]()
        elif folder.is_unused():
            plan, notices = new_plan(request, space, trials)
            notices += source_notices(plan.config.data.sources)
        else:
            raise UsageError(f"{folder.path} exists already and is not a search. Choose another --out.")
    count = number_of_combinations(plan.space)
    if count is not None and plan.trials > count:
        if trials is not None:
            notices.append(f"--try has {count} combinations of values, so there are {count} trials instead of {trials}")
        plan = replace(plan, trials=count)
    for notice in notices:
        notify(notice)
    with folder.locked():
        return _run(folder, plan, notify, quiet=progress is None)


def _run(folder: SearchFolder, plan: Plan, notify: Callable[[str], None], *, quiet: bool) -> SearchResult:
    study = Study(folder, plan.space, plan.config.train.seed)
    result = _write(folder, plan, study)
    notify(_headline(folder, plan, result))
    try:
        while result.ended < plan.trials:
            result = _next_trial(folder, plan, study, result.ended + 1, notify, quiet=quiet)
            _refuse_if_all_fail(result)
    finally:
        plotted = [_plotted(trial) for trial in study.trials()]
        plot_search(plotted, _logarithmic(plan), study.importance(), folder.plot_file)
    return result


def _next_trial(
    folder: SearchFolder, plan: Plan, study: Study, count: int, notify: Callable[[str], None], *, quiet: bool
) -> SearchResult:
    """The result after the next trial; if it is stopped, it is marked and will be repeated."""
    trial, values = study.ask()
    number = trial.number + 1
    label = f"{folder.run(number).path.name} ({count} of {plan.trials})"
    try:
        notify(f"{label}  {settings_text(values)}")
        end = _trial(folder, plan, trial, values, quiet=quiet)
    except BaseException as error:
        study.interrupted(number)
        _write(folder, plan, study)
        advice = f"stopped in {label}, which will be repeated. Continue with: {_resume_command(folder)}"
        if isinstance(error, Interrupted):
            raise Interrupted(advice, error.exit_code - 128) from None
        notify(advice)
        raise
    study.tell(trial, _saved(end), end.val_bits_per_byte)
    result = _write(folder, plan, study)
    notify(f"{label}  {_outcome(end, result)}")
    return result


def _trial(
    folder: SearchFolder, plan: Plan, trial: optuna.Trial, values: Mapping[str, Value], *, quiet: bool
) -> TrialEnd:
    try:
        config = plan.trial_config(values)
    except ConfigError as error:  # values that contradict each other
        return TrialEnd("failed", 0, 0.0, message=str(error))
    run = folder.run(trial.number + 1)
    return run_trial(trial, config, run, plan.request.seconds, plan.most_steps_of(values), quiet=quiet)


def _write(folder: SearchFolder, plan: Plan, study: Study) -> SearchResult:
    """The result so far, after writing it and the best configuration."""
    result = SearchResult(
        out=str(folder.path),
        trials_planned=plan.trials,
        seed=plan.config.train.seed,
        trials=ranked(study.trials()),
        importance=study.importance(),
    )
    if best := result.best:
        values = plan.best_config(best.settings).model_dump(mode="json")
        del values["train"]["max_steps"]  # the command has it
        write_text(folder.best_config_file, dump_toml(values))
        arguments = ["--config", str(folder.best_config_file), "--train.max-steps", str(LONGER * best.steps)]
        result = replace(result, command=shlex.join(["tokenloom", "train", *arguments]))
    write_json(folder.record_file, {"plan": plan.to_json(), "result": result.to_json()})
    return result


def _plotted(trial: TrialResult) -> PlottedTrial:
    settings = {flag_name(key): value for key, value in trial.settings.items()}
    return PlottedTrial(trial.number, trial.val_bits_per_byte, trial.state, settings)


def _logarithmic(plan: Plan) -> dict[str, bool]:
    """For each setting that is tried, whether its axis is logarithmic."""
    return {flag_name(key): not isinstance(tried, Choices) and tried.log for key, tried in plan.space.items()}


def _saved(end: TrialEnd) -> dict[str, object]:
    """What the study stores of a trial besides its value."""
    return {key: value for key, value in asdict(end).items() if key != "val_bits_per_byte"}


def _headline(folder: SearchFolder, plan: Plan, result: SearchResult) -> str:
    seconds, steps = plan.request.seconds, plan.most_steps
    limits = [f"{duration(seconds)} each"] if seconds else []
    limits += [f"at most {steps:,} steps each"] if steps else []
    done = f", {result.ended} of them done" if result.ended else ""
    return f"search {folder.path}: {counted(plan.trials, 'trial')}{done}, {', '.join(limits)}, seed {result.seed}"


def _outcome(end: TrialEnd, result: SearchResult) -> str:
    best = result.best
    value = "" if end.val_bits_per_byte is None else f" {end.val_bits_per_byte:.4f} bits/byte,"
    message = "" if end.message is None else f": {end.message}"
    best_text = "" if best is None or best.val_bits_per_byte is None else f"; best {best.val_bits_per_byte:.4f}"
    return f"{end.state}{value} {end.steps:,} steps, {duration(end.seconds)}{best_text}{message}"


def _refuse_if_all_fail(result: SearchResult) -> None:
    """Raise `TrainingError` if the first trials failed, and none did not: more of them would fail as well."""
    ended = [trial for trial in result.trials if trial.state != "interrupted"]
    enough = min(MOST_FAILURES_AT_FIRST, result.trials_planned)
    if len(ended) >= enough and all(trial.state == "failed" for trial in ended):
        failed = "the only trial" if len(ended) == 1 else f"the first {len(ended)} trials"
        raise TrainingError(f"{failed} failed, so the search stops. Reason: {ended[0].message}")


def _resume_command(folder: SearchFolder) -> str:
    return f"tokenloom search --resume {shlex.quote(str(folder.path))}"


def _ignore(_: str) -> None:
    return
