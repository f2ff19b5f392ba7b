"""tokenloom search: search for the settings with which a model trains best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.aligned import aligned
from tokenloom.cli.flags import SHORT_NAMES, DataFlags, ModelFlags, SampleFlags, TrainFlags, given
from tokenloom.cli.models import fetch_if_named
from tokenloom.cli.output import print_json, print_progress, print_result
from tokenloom.cli.parameters import RUN, SEARCH, Json
from tokenloom.errors import UsageError
from tokenloom.reporting.formatting import duration, percent

if TYPE_CHECKING:
    from tokenloom.tuning.result import SearchResult, TrialResult

# Not standard input, which cannot be read again when a search is continued.
SEARCH_SOURCES_HELP = "Files, folders, globs, hf:NAME, a folder of token shards, or a named corpus."


def search(
    *data: Annotated[str, Parameter(help=SEARCH_SOURCES_HELP)],
    tried: Annotated[tuple[str, ...], Parameter(name="--try", group=SEARCH, negative="", show_default=False)] = (),
    trials: Annotated[int | None, Parameter(group=SEARCH)] = None,
    budget: Annotated[str | None, Parameter(group=SEARCH)] = None,
    out: Annotated[Path | None, Parameter(group=SEARCH)] = None,
    resume: Annotated[Path | None, Parameter(group=SEARCH)] = None,
    preset: Annotated[str | None, Parameter(group=RUN)] = None,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    json: Json = False,
    data_: Annotated[DataFlags | None, Parameter(name="data")] = None,
    model: ModelFlags | None = None,
    train: TrainFlags | None = None,
    sample: SampleFlags | None = None,
) -> None:
    """Search for the settings with which a model trains best, by trials with a budget each.

    A trial is a run; the best one has the lowest bits per byte on the validation text. Trials that are not promising
    are stopped early. The same command continues a search that was interrupted.

    Parameters
    ----------
    tried
        A setting to try, by the name of its flag: NAME=LOW..HIGH, with :log for a logarithmic scale, or
        NAME=A,B,C. Can be repeated.
    trials
        Number of trials, those of earlier sessions included. Defaults to 12, or to the number of combinations if there
        are fewer: none is tried twice.
    budget
        Time limit of a trial, such as 20s or 5m, without the preparation of its text. Defaults to a minute if
        --train.max-steps is not set.
    out
        Folder of the search. Defaults to a folder in searches/ named after the data.
    resume
        Continue the search in this folder; only --trials can be changed.
    preset
        Preset that all trials start from; tokenloom info lists them. Without one, model and batch size are chosen once
        for the text, the machine and the budget.
    config
        TOML file with tables [model], [data], [train] and [sample]; overrides the preset.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    settings = {"model": given(model), "data": given(data_), "train": given(train), "sample": given(sample)}
    if resume is not None:
        _refuse_with_resume(data, {"try": tried, "budget": budget, "out": out, "preset": preset, "config": config})
        _refuse_with_resume((), {name: values for name, values in settings.items() if values})
    tries = _parsed(tried)
    from tokenloom.tuning.search import search as run_search

    if init_from := settings["train"].get("init_from"):
        fetch_if_named(str(init_from))
    result = run_search(
        *data,
        tries=tries,
        trials=trials,
        budget=budget,
        out=out,
        resume=resume,
        preset=preset,
        config=config,
        settings=settings,
        progress=print_progress,
    )
    if json:
        print_json(result.to_json())
    else:
        print_result("\n".join(_lines(result)))


def _parsed(tried: Sequence[str]) -> dict[str, str]:
    """The candidates of each setting as text."""
    keys = {flag.lstrip("-"): key for key, flag in SHORT_NAMES.items()}
    tries: dict[str, str] = {}
    for text in tried:
        name, equals, candidates = text.partition("=")
        if not equals or not name.strip() or not candidates.strip():
            raise UsageError(f'--try "{text}" is incomplete. Write NAME=LOW..HIGH or NAME=A,B,C.')
        key = name.strip().lstrip("-")
        key = keys.get(key, key)
        if key in tries:
            raise UsageError(f"{key} is tried twice. Write all its values in one --try.")
        tries[key] = candidates
    return tries


def _refuse_with_resume(data: Sequence[str], flags: Mapping[str, object]) -> None:
    if data:
        raise UsageError(f"--resume continues a search with its own text, got {data[0]}. Omit it.")
    for name, value in flags.items():
        if value:
            raise UsageError(f"--{name} cannot be used with --resume: it applies to new searches only. Omit it.")


def _lines(result: SearchResult) -> list[str]:
    from tokenloom.tuning.space import flag_name

    keys = list(dict.fromkeys(key for trial in result.trials for key in trial.settings))
    header = (
        "rank",
        "trial",
        "state",
        *(flag_name(key).partition(".")[2] for key in keys),
        "bits/byte",
        "steps",
        "time",
    )
    rows = [_cells(rank, trial, keys) for rank, trial in enumerate(result.trials, start=1)]
    lines = [*aligned([header, *rows], text_columns=3), ""]
    if result.importance:
        shares = [f"{flag_name(key)} {percent(share)}" for key, share in result.importance.items()]
        lines.append(f"importance   {', '.join(shares)}")
    if result.command is not None:
        lines.append(f"train longer {result.command}")
    return [*lines, f"files        {result.out}"]


def _cells(rank: int, trial: TrialResult, keys: Sequence[str]) -> Sequence[str]:
    from tokenloom.tuning.result import value_text

    return (
        str(rank) if trial.state == "finished" else "-",
        str(trial.number),
        trial.state,
        *(value_text(trial.settings[key]) if key in trial.settings else "-" for key in keys),
        "-" if trial.val_bits_per_byte is None else f"{trial.val_bits_per_byte:.4f}",
        f"{trial.steps:,}",
        duration(trial.seconds),
    )
