"""tokenloom inspect: the predictions of a model at each token of a text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.output import print_json_list, print_result, result_console
from tokenloom.cli.parameters import (
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
from tokenloom.cli.stdin import text_of
from tokenloom.reporting.formatting import quoted

if TYPE_CHECKING:
    from tokenloom.evaluation.inspection import Inspection

_TABLE_ALTERNATIVES = 3


def inspect(
    model: ModelArgument,
    file: TextFile = None,
    *,
    text: Text = None,
    top: Annotated[int, Parameter(group=OUTPUT)] = 10,
    context: Context = None,
    stride: Stride = None,
    device: Device = "auto",
    precision: InferencePrecision = "fp32",
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Show the prediction of a model at each token of a text: a heatmap in a terminal, a table when piped.

    Parameters
    ----------
    top
        Most likely tokens to list for each position, with --json. The table lists three.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    from tokenloom import api

    inspection = api.inspect(
        load_model(model, trust=trust),
        text_of("inspect", file, text),
        top=_shown(top, json=json),
        context=context,
        stride=stride,
        device=device,
        precision=precision,
    )
    if json:
        print_json_list(inspection.head_json(), "tokens", (token.to_json() for token in inspection.tokens))
    elif _is_colored():
        _print_heatmap(inspection)
    else:
        for line in _table(inspection):
            print_result(line)


def _shown(top: int, *, json: bool) -> int:
    """How many of the most likely tokens are printed: the memory for all others would be wasted."""
    if json:
        return top
    # The table leaves out the token itself, which may be one of them.
    return min(top, 0 if _is_colored() else _TABLE_ALTERNATIVES + 1)


def _is_colored() -> bool:
    """Whether stdout is a terminal with colors: without them, a heatmap shows nothing."""
    if not sys.stdout.isatty():
        return False
    from tokenloom.reporting.terminal_heatmap import can_color

    return can_color(result_console())


def _print_heatmap(inspection: Inspection) -> None:
    from tokenloom.reporting.terminal_heatmap import heatmap, legend

    console = result_console()
    console.print(heatmap(inspection, console))
    console.print()
    console.print(legend(console))
    console.print(_total(inspection), markup=False)


def _table(inspection: Inspection) -> Iterator[str]:
    yield f"{'token':20} {'id':>6} {'nats':>7} {'probability':>11} {'rank':>6} {'entropy':>7}  top alternatives"
    for token in inspection.tokens:
        others = [other for other in token.top if other.id != token.id][:_TABLE_ALTERNATIVES]
        alternatives = "  ".join(f"{quoted(other.text, 12)} {other.probability:.2f}" for other in others)
        yield (
            f"{quoted(token.text, 20):20} {token.id:>6} {token.nats:>7.3f} "
            f"{token.probability:>11.3e} {token.rank:>6} {token.entropy:>7.3f}  {alternatives}"
        )
    yield _total(inspection)


def _total(inspection: Inspection) -> str:
    total = inspection.measurement
    return (
        f"loss {total.loss:.4f} nats per token, perplexity {total.perplexity:,.4f} "
        f"on {total.tokens:,} tokens, context {total.context:,}, stride {total.stride:,}"
    )
