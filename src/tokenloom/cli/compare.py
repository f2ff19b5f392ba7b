"""tokenloom compare: the same text under two models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.output import print_json, print_result, result_console
from tokenloom.cli.parameters import (
    ARGUMENTS,
    OUTPUT,
    Context,
    Device,
    InferencePrecision,
    Json,
    ModelArgument,
    Stride,
    Text,
    TextFile,
    Trust,
)
from tokenloom.cli.stdin import STDIN, text_of
from tokenloom.errors import UsageError
from tokenloom.home import expand_home
from tokenloom.reporting.formatting import quoted

if TYPE_CHECKING:
    from tokenloom.evaluation.comparison import ComparedNats, Comparison, TokenPart, WordPart, WordTotal
    from tokenloom.weights.load import LoadedModel


def compare(
    a: ModelArgument,
    b: Annotated[str | None, Parameter(group=ARGUMENTS)] = None,
    file: TextFile = None,
    *,
    text: Text = None,
    words: Annotated[int, Parameter(group=OUTPUT)] = 10,
    context: Context = None,
    stride: Stride = None,
    device: Device = "auto",
    precision: InferencePrecision = "fp32",
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Compare the predictions of two models on the same text: colored text in a terminal, a table when piped.

    Of a run alone, the first checkpoint is compared with the newest one. Models that tokenize the text the same way are
    compared token by token, others word by word. Differences are in nats, B minus A: below 0, B predicts the text
    better.

    Parameters
    ----------
    b
        A second model. Without it, A is a run, whose first checkpoint (RUN@first) is compared with its newest one.
    words
        Words to list with the largest improvements of B, and with the largest losses.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    from tokenloom import api

    if words < 0:
        raise UsageError(f"--words must be 0 or more, got {words}. Try 10.")
    if file is None and text is None and b is not None and _is_text(b):
        b, file = None, b
    compared_text = text_of("compare", file, text)
    if b is None:
        names, models = _first_and_newest(a)
    else:
        names, models = (a, b), (load_model(a, trust=trust), load_model(b, trust=trust))
    comparison = api.compare(
        *models,
        compared_text,
        context=context,
        stride=stride,
        device=device,
        precision=precision,
    )
    if json:
        print_json(comparison.to_json())
        return
    if sys.stdout.isatty():
        _print_change_map(comparison)
    else:
        print_result("\n".join(_table(comparison.unit, comparison.parts)))
    print_result("\n".join(["", *_word_tables(comparison.words, words), "", *_totals(comparison, names)]))


def _is_text(name: str) -> bool:
    """Whether an argument names a text and not a model, which can be a file too."""
    from tokenloom.weights.reference import file_format

    path = expand_home(name)
    return name == STDIN or (path.is_file() and file_format(path) is None)


def _first_and_newest(run: str) -> tuple[tuple[str, str], tuple[LoadedModel, LoadedModel]]:
    """The first and the newest checkpoint of a run: their names and models.

    Raises `UsageError` if `run` is not one, or has a single checkpoint.
    """
    from tokenloom.run_folder import RunFolder
    from tokenloom.weights.checkpoint import Checkpoint

    if not RunFolder(expand_home(run)).checkpoints.is_dir():
        raise UsageError(f"compare needs two models, or one run; {run} is not a run. Name a second model after it.")
    first, newest = load_model(f"{run}@first"), load_model(run)
    steps = Checkpoint(first.path).step, Checkpoint(newest.path).step
    if steps[0] == steps[1]:
        raise UsageError(f"{run} has a single checkpoint, of step {steps[0]:,}. Name a second model after it.")
    return (f"{run}@step-{steps[0]}", f"{run}@step-{steps[1]}"), (first, newest)


def _print_change_map(comparison: Comparison) -> None:
    from tokenloom.reporting.terminal_heatmap import change_legend, change_map

    console = result_console()
    console.print(change_map(comparison, console))
    console.print()
    console.print(change_legend(console))


def _table(unit: str, parts: Sequence[TokenPart | WordPart]) -> list[str]:
    rows = [f"{quoted(part.text, 32):32} {_columns(part.nats)}" for part in parts]
    return [f"{unit:32} {'nats in A':>12} {'nats in B':>12} {'difference':>12}", *rows]


def _word_tables(words: Sequence[WordTotal], limit: int) -> list[str]:
    """The words with the largest differences in both directions."""
    better = [word for word in words if word.nats.difference < 0][:limit]
    worse = [word for word in reversed(words) if word.nats.difference > 0][:limit]
    lines: list[str] = []
    for title, totals in (("words that B gained on", better), ("words that B lost on", worse)):
        if totals:
            lines += ["", f"{title:24} {'times':>7} {'nats in A':>12} {'nats in B':>12} {'difference':>12}"]
            lines += [f"{quoted(word.word, 24):24} {word.times:>7,} {_columns(word.nats)}" for word in totals]
    return lines[1:]


def _totals(comparison: Comparison, names: tuple[str, str]) -> list[str]:
    a, b = (model.measurement for model in comparison.models)
    rows = [
        ("nats per token", a.loss, b.loss),
        ("perplexity", a.perplexity, b.perplexity),
        ("bits per byte", a.bits_per_byte, b.bits_per_byte),
    ]
    lines = [f"{'':16} {'A':>12} {'B':>12} {'difference':>12}"]
    for name, value_a, value_b in rows:
        if value_a is not None and value_b is not None:
            lines.append(f"{name:16} {value_a:>12,.4f} {value_b:>12,.4f} {value_b - value_a:>12,.4f}")
    for letter, total, name in zip("AB", (a, b), names, strict=True):
        lines.append(
            f"{letter}  {name} on {total.tokens:,} tokens ({total.bytes:,} bytes), "
            f"context {total.context:,}, stride {total.stride:,}"
        )
    return lines


def _columns(nats: ComparedNats) -> str:
    return f"{nats.a:>12.3f} {nats.b:>12.3f} {nats.difference:>12.3f}"
