"""Runs side by side: the data, size, figures and state of each, and where their configurations differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tokenloom.config import Config, config_keys
from tokenloom.errors import TokenloomError
from tokenloom.reporting.history import headline_figures, read_history
from tokenloom.reporting.run_state import RunStatus, read_status
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunPlan, RunSummary

# Of a `RunSummary`, in the order of the row.
_FIGURES = (
    "checkpoint",
    "steps",
    "tokens",
    "epoch",
    "seconds",
    "train_loss",
    "val_loss",
    "val_perplexity",
    "val_bits_per_byte",
    "best_step",
    "best_val_loss",
    "tokens_per_sec",
    "device",
    "precision",
)


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """A run as the table shows it; None for what is not known."""

    run: str
    """Its id."""
    status: RunStatus
    figures: RunSummary
    data: str | None = None
    family: str | None = None
    tokenizer: str | None = None
    parameters: int | None = None
    max_steps: int | None = None
    seconds_left: float | None = None
    """At the mean speed so far; None unless it trains."""
    problem: str | None = None
    """Why a file of the run cannot be read."""

    def to_json(self) -> dict[str, object]:
        """The row under the keys of `tokenloom runs --json`."""
        return {
            "run": self.run,
            "path": self.figures.run,
            **asdict(self.status),
            "data": self.data,
            "family": self.family,
            "tokenizer": self.tokenizer,
            "parameters": self.parameters,
            "max_steps": self.max_steps,
            "seconds_left": self.seconds_left,
            **{name: getattr(self.figures, name) for name in _FIGURES},
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in all of some runs."""

    key: str
    values: Sequence[object]
    """One for each run."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def find_runs(folder: RunFolder) -> Mapping[str, RunFolder]:
    """The runs in a folder by their names, the one that was started or resumed last first; the folder may be a run."""
    if folder.has_files():
        return {folder.path.resolve().name: folder}
    runs = [run for path in folder.path.glob("*") if (run := RunFolder(path)).has_files()]
    runs.sort(key=lambda run: (-run.config_file.stat().st_mtime, run.path.name))
    return {run.path.name: run for run in runs}


def read_row(id: str, run: RunFolder, now: float) -> RunRow:
    """The row of a run at the time `now`; a file that cannot be read is the row's problem, not an error."""
    status = read_status(run, now)
    try:
        figures = headline_figures(read_history(run.path))
        return make_row(id, status, figures, run.config(), run.plan())
    except (TokenloomError, OSError) as error:
        return RunRow(run=id, status=status, figures=RunSummary(run=str(run.path)), problem=str(error))


def make_row(id: str, status: RunStatus, figures: RunSummary, config: Config, plan: RunPlan | None) -> RunRow:
    """The row of a run whose files have been read."""
    return RunRow(
        run=id,
        status=status,
        figures=figures,
        data=" ".join(config.data.sources) or None,
        family=config.model.family,
        tokenizer=config.data.tokenizer,
        parameters=_parameters(config, plan, figures),
        max_steps=config.train.max_steps,
        seconds_left=_seconds_left(config, plan, status, figures),
    )


def find_differences(configs: Sequence[Config]) -> list[Difference]:
    """The settings whose values differ between the configurations of some runs, in the order of the sections."""
    differences: list[Difference] = []
    for key in config_keys():
        section, name = key.split(".")
        values = [getattr(getattr(config, section), name) for config in configs]
        if any(value != values[0] for value in values):
            differences.append(Difference(key, values))
    return differences


def _parameters(config: Config, plan: RunPlan | None, figures: RunSummary) -> int | None:
    if figures.parameters is not None:
        return figures.parameters
    if plan is not None:
        return plan.parameters
    if config.model.vocab_size is None:
        return None
    from tokenloom.model.flops import count_parameters

    return count_parameters(config.model)


def _seconds_left(config: Config, plan: RunPlan | None, status: RunStatus, figures: RunSummary) -> float | None:
    if status.state not in ("training", "stale"):
        return None
    if not figures.steps or figures.seconds is None:
        return plan.estimated_seconds if plan is not None else None
    return (config.train.max_steps - figures.steps) * figures.seconds / figures.steps
