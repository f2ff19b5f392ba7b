"""tokenloom train: text in, a trained model and its story out."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tokenloom.cli.flags import DataFlags, ModelFlags, SampleFlags, TrainFlags, given
from tokenloom.cli.models import fetch_if_named
from tokenloom.cli.stdin import source_names
from tokenloom.errors import UsageError


def train(
    *data: str,
    preset: str | None = None,
    config: Path | None = None,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    budget: str | None = None,
    tokenizer: str | None = None,
    add_token: Annotated[list[str] | None, Parameter(negative="")] = None,
    init_from: str | None = None,
    init_optimizer: Annotated[bool, Parameter(negative="")] = False,
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    compile: bool | None = None,
    prompt: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    model: ModelFlags | None = None,  # type: ignore[valid-type]
    data_: Annotated[DataFlags | None, Parameter(name="data")] = None,  # type: ignore[valid-type]
    train: TrainFlags | None = None,  # type: ignore[valid-type]
    sample: SampleFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Train a GPT on text: files, folders, globs, - (stdin), hf:NAME, prepared shards, or a named corpus.

    Without arguments: modern-xs on the docstrings of Python's standard library, for about two minutes.

    Parameters
    ----------
    data
        What to train on; with --resume, the run to go on with (the newest one if left out).
    preset
        A configuration to start from: see tokenloom info.
    config
        A TOML file with [model], [data], [train] and [sample] over the preset.
    out
        Folder of the run; if left out, runs/ and the name of the data.
    resume
        Go on with a run, exactly where its newest checkpoint stands.
    budget
        How long the whole command may take (290s, 5m, 1h); fixes the number of steps.
    tokenizer
        gpt2, char, byte, bpe:N or the path of a tokenizer.json.
    add_token
        A token to add to the tokenizer's, such as <|user|>; may be given more than once.
    init_from
        A model to go on from: a run, a checkpoint, a folder of GPT-2, or a .pth; shape and tokenizer are its own.
    init_optimizer
        Take over what the optimizer of that model remembers, too.
    seed
        Seed of weights, batches and dropout.
    device
        auto, cpu, cuda, cuda:N or mps.
    precision
        auto, fp32, bf16 or fp16.
    compile
        Compile the model: a slow start, faster steps.
    prompt
        A text to continue at every evaluation; may be given more than once.
    json
        Print one JSON object with the results on stdout; progress goes to stderr.
    """
    from tokenloom import api
    from tokenloom.training.budget import process_start

    shortcuts = {"seed": seed, "device": device, "precision": precision, "compile": compile, "init_from": init_from}
    if init_optimizer:
        shortcuts["init_optimizer"] = True
    tokens = {"tokenizer": tokenizer, "add_tokens": add_token}
    settings = {
        "model": given(model),
        "data": given(data_) | {name: value for name, value in tokens.items() if value},
        "train": given(train) | {name: value for name, value in shortcuts.items() if value is not None},
        "sample": given(sample) | ({"prompts": prompt} if prompt else {}),
    }
    sources = source_names(data)
    if resume:
        beginnings = {"preset": preset, "config": config, "out": out, "budget": budget, "tokenizer": tokenizer}
        _refuse_with_resume({**beginnings, "add-token": add_token, "init-from": init_from})
        if len(sources) > 1:
            raise UsageError(f"--resume takes one run, got {len(sources)}. Name one, or none for the newest.")
        summary = api.resume(*sources, settings=settings)
    else:
        start = process_start()
        if init_from is not None:
            fetch_if_named(init_from)
        summary = api.train(
            *sources, preset=preset, config=config, out=out, budget=budget, started=start, settings=settings
        )
    if json and summary:  # under torchrun the main process has it
        print(json_format.dumps(summary))


def _refuse_with_resume(flags: Mapping[str, object]) -> None:
    for name, value in flags.items():
        if value is not None:
            raise UsageError(f"--{name} does not go with --resume: a run goes on as it was started. Leave it out.")
