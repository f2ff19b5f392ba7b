"""tokenloom inspect: what a model saw at each token."""

from __future__ import annotations

import json as json_format
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.stdin import text_of
from tokenloom.reporting.messages import quoted

_ALTERNATIVES = 3  # in the table


def inspect(
    model: str,
    file: str | None = None,
    *,
    text: str | None = None,
    top: int = 10,
    context: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
    trust: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what a model saw at each token of a text: a heatmap in a terminal, a table when piped.

    Parameters
    ----------
    model
        A run (or RUN@best, RUN@step-1000), a checkpoint, a folder of GPT-2 from Hugging Face or OpenAI, or a .pth.
    file
        A file of text, or - (stdin).
    text
        The text itself, instead of a file.
    top
        Likeliest tokens to list at each place (in JSON; the table shows three).
    context
        Tokens in a window; the model's own context if left out.
    stride
        Tokens between windows; a smaller one gives each token more context and takes longer.
    device
        auto, cpu, cuda, cuda:N or mps.
    precision
        fp32, bf16, fp16 or auto.
    trust
        Let a .pth that holds more than tensors run its own code while it is read.
    json
        Print one JSON object on stdout.
    """
    from tokenloom import api

    written = text_of("inspect", file, text)
    result = api.inspect(
        load_model(model, trust=trust),
        written,
        top=top,
        context=context,
        stride=stride,
        device=device,
        precision=precision,
    )
    if json:
        print(json_format.dumps(result))
    elif sys.stdout.isatty():
        _draw(result)
    else:
        print("\n".join(_table(result)))


def _draw(result: dict[str, Any]) -> None:
    from rich.console import Console

    from tokenloom.reporting.terminal_heatmap import heatmap, legend

    console = Console(highlight=False)
    console.print(heatmap(result["first"]["text"], result["tokens"]))
    console.print()
    console.print(legend())
    console.print(_measured(result), markup=False)


def _table(result: dict[str, Any]) -> list[str]:
    lines = [f"{'token':20} {'id':>6} {'nats':>7} {'probability':>11} {'rank':>6} {'entropy':>7}  likelier"]
    for token in result["tokens"]:
        others = [other for other in token["top"] if other["id"] != token["id"]][:_ALTERNATIVES]
        likelier = "  ".join(f"{quoted(other['text'], 12)} {other['probability']:.2f}" for other in others)
        lines.append(
            f"{quoted(token['text'], 20):20} {token['id']:>6} {-token['log_probability']:>7.3f} "
            f"{token['probability']:>11.3e} {token['rank']:>6} {token['entropy']:>7.3f}  {likelier}"
        )
    return [*lines, _measured(result)]


def _measured(result: dict[str, Any]) -> str:
    return (
        f"loss {result['loss']:.4f} nats per token, perplexity {result['perplexity']:,.4f} "
        f"on {result['scored_tokens']:,} tokens, context {result['context']:,}, stride {result['stride']:,}"
    )
