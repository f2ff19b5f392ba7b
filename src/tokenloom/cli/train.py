"""tokenloom train: train a model, or resume a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tokenloom.cli.flags import DataFlags, ModelFlags, SampleFlags, TrainFlags, given
from tokenloom.cli.models import fetch_if_named
from tokenloom.cli.output import print_json
from tokenloom.cli.parameters import RUN, TRAINING_SOURCES_HELP, Json, Refresh
from tokenloom.cli.train_page import announce, folder_of_runs, keep, page_beside
from tokenloom.config import Settings
from tokenloom.errors import UsageError


def train(
    *data: Annotated[
        str,
        Parameter(
            help=f"{TRAINING_SOURCES_HELP} With --resume, the run to resume; defaults to the newest one in runs/."
        ),
    ],
    preset: Annotated[str | None, Parameter(group=RUN)] = None,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    out: Annotated[Path | None, Parameter(group=RUN)] = None,
    resume: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    budget: Annotated[str | None, Parameter(group=RUN)] = None,
    serve: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    refresh: Refresh = False,
    json: Json = False,
    data_: Annotated[DataFlags | None, Parameter(name="data")] = None,
    model: ModelFlags | None = None,
    train: TrainFlags | None = None,
    sample: SampleFlags | None = None,
) -> None:
    """Train a GPT on text, or resume a run.

    Without arguments, trains on the docstrings of Python's standard library for two minutes. With a time limit and
    without a preset, the size of the model, the tokenizer, the batch size and the weight decay are chosen for the text,
    the machine and the time; three lines say how. The defaults below apply to everything else.

    Parameters
    ----------
    preset
        Preset to start from; tokenloom info lists them.
    config
        TOML file with tables [model], [data], [train] and [sample]; overrides the preset.
    out
        Folder of the run. Defaults to a new folder in runs/ named after the data.
    resume
        Resume a run from its newest valid checkpoint.
    budget
        Time limit for the whole command, such as 290s, 5m or 1h; determines the number of steps. Defaults to two
        minutes if --train.max-steps is not set. With --resume, there is no limit by default.
    serve
        Show the run on a page in the browser while it trains, on port 8000 or a free one. At a terminal, the page stays
        until Ctrl-C when the training has finished; elsewhere it ends with the command.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    settings = {"model": given(model), "data": given(data_), "train": given(train), "sample": given(sample)}
    if resume:
        flags = {"preset": preset, "config": config, "out": out, "refresh": refresh or None}
        _refuse_with_resume(settings, flags)
        if len(data) > 1:
            raise UsageError(f"--resume takes one run, got {len(data)}. Name one, or none for the newest.")
    from tokenloom.compute.parallel import launched_rank

    runs = folder_of_runs(out, data if resume else ()) if serve and launched_rank() == 0 else None
    with page_beside(runs) as page:
        from tokenloom import api
        from tokenloom.training.budget import process_start

        announce(page)
        if resume:
            summary = api.resume(*data, budget=budget, started=process_start(), settings=settings)
        else:
            if init_from := settings["train"].get("init_from"):
                fetch_if_named(str(init_from))
            summary = api.train(
                *data,
                preset=preset,
                config=config,
                out=out,
                budget=budget,
                started=process_start(),
                settings=settings,
                refresh=refresh,
            )
        if json and summary is not None:  # Under torchrun, only rank 0 has a summary.
            print_json(summary.to_json())
        keep(page)


def _refuse_with_resume(settings: Settings, flags: Mapping[str, object]) -> None:
    """Raise `UsageError` for flags that only apply to a new run."""
    fixed = {
        "tokenizer": settings["data"].get("tokenizer"),
        "add-token": settings["data"].get("add_tokens"),
        "init-from": settings["train"].get("init_from"),
    }
    for name, value in {**flags, **fixed}.items():
        if value is not None:
            raise UsageError(f"--{name} cannot be used with --resume: it applies to new runs only. Omit it.")
