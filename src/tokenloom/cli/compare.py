"""tokenloom compare: the same text under two models."""

from __future__ import annotations

import json as json_format
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.stdin import text_of
from tokenloom.reporting.messages import quoted


def compare(
    a: str,
    b: str,
    file: str | None = None,
    *,
    text: str | None = None,
    words: int = 10,
    context: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
    trust: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show how two models read the same text: coloured in a terminal, a table when piped.

    Models that cut the text into the same tokens are compared token by token, others word by word. A difference is B's
    nats less A's: below 0, B expected the text better.

    Parameters
    ----------
    a
        A model: a run (or RUN@best, RUN@step-1000), a checkpoint, a folder of GPT-2, or a .pth.
    b
        Another model, or another checkpoint of the same run.
    file
        A file of text, or - (stdin).
    text
        The text itself, instead of a file.
    words
        Words to list that B gained most on, and lost most on.
    context
        Tokens in a window; each model's own context if left out.
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

    written = text_of("compare", file, text)
    one, other = load_model(a, trust=trust), load_model(b, trust=trust)
    result = api.compare(one, other, written, context=context, stride=stride, device=device, precision=precision)
    if json:
        print(json_format.dumps(result))
        return
    if sys.stdout.isatty():
        _draw(result)
    else:
        print("\n".join(_table(result["unit"], result["parts"])))
    print("\n".join(["", *_word_table(result["words"], words), "", *_totals(result["models"], (a, b))]))


def _draw(result: dict[str, Any]) -> None:
    from rich.console import Console

    from tokenloom.reporting.terminal_heatmap import change_legend, change_map

    console = Console(highlight=False)
    console.print(change_map(result["before"], result["parts"]))
    console.print()
    console.print(change_legend())


def _table(unit: str, parts: list[dict[str, Any]]) -> list[str]:
    rows = [f"{quoted(part['text'], 32):32} {_three(part)}" for part in parts]
    return [f"{unit:32} {'nats in A':>12} {'nats in B':>12} {'difference':>12}", *rows]


def _word_table(words: list[dict[str, Any]], most: int) -> list[str]:
    """The ends of the list; a word that is as likely in both is neither gained nor lost."""
    gained = [word for word in words if word["difference"] < 0][:most]
    lost = [word for word in reversed(words) if word["difference"] > 0][:most]
    lines: list[str] = []
    for title, chosen in (("words that B gained on", gained), ("words that B lost on", lost)):
        if chosen:
            lines += ["", f"{title:24} {'times':>7} {'nats in A':>12} {'nats in B':>12} {'difference':>12}"]
            lines += [f"{quoted(word['word'], 24):24} {word['times']:>7,} {_three(word)}" for word in chosen]
    return lines[1:]


def _totals(models: list[dict[str, Any]], names: tuple[str, str]) -> list[str]:
    rows = [("nats per token", "loss"), ("perplexity", "perplexity"), ("bits per byte", "bits_per_byte")]
    lines = [f"{'':16} {'A':>12} {'B':>12} {'difference':>12}"]
    for name, key in rows:
        values = [model[key] for model in models]
        if None not in values:
            lines.append(f"{name:16} " + " ".join(f"{v:>12,.4f}" for v in (*values, values[1] - values[0])))
    for letter, model, name in zip("AB", models, names, strict=True):
        lines.append(
            f"{letter}  {name} on {model['scored_tokens']:,} tokens ({model['scored_bytes']:,} bytes), "
            f"context {model['context']:,}, stride {model['stride']:,}"
        )
    return lines


def _three(part: dict[str, Any]) -> str:
    return " ".join(f"{value:>12.3f}" for value in (*part["nats"], part["difference"]))
