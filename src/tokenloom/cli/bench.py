"""tokenloom bench: ours and the peers that are installed, in turn, each in a process of its own."""

from __future__ import annotations

import json as json_format
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from tokenloom.errors import UsageError

if TYPE_CHECKING:
    from tokenloom.bench.harness import Contender, Outcome

bench = App(name="bench", help="Measure this machine: ours and the peers that are installed, in turn.")


@Parameter(name="*")
@dataclass(frozen=True)
class Turns:
    """What all of them have in common."""

    rounds: int = 3
    """Times that each contender runs; medians are reported."""
    only: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Contenders whose name contains this; may be given more than once."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON object on stdout."""


EACH = Turns()


@bench.command
def train(
    *, shape: Literal["chapter", "gpt2"] = "chapter", seconds: float = 30.0, steps: int = 0, turns: Turns = EACH
) -> None:
    """Steps of a GPT-2 with 124M parameters, batch 2×256: tokens a second, and how near the machine's own ceiling.

    Parameters
    ----------
    shape
        chapter (untied head, dropout 0.1) or gpt2 (tied, no dropout).
    seconds
        Seconds of steps that are timed.
    steps
        Steps in all, the loss of whose last ten is told; 0: as many as were timed.
    """
    from tokenloom.bench.train import CONTENDERS, model_flops_use

    options = {"shape": shape, "seconds": seconds, "steps": steps}
    _run("train", CONTENDERS[shape], options, turns, "tokens_per_sec", model_flops_use)


@bench.command
def generate(*, batch: int = 1, turns: Turns = EACH) -> None:
    """200 greedy tokens after a prompt of 32, by a GPT-2 with 124M parameters.

    Parameters
    ----------
    batch
        Texts that are continued at once.
    """
    from tokenloom.bench.generate import CONTENDERS, bandwidth_use, write_models

    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        _run("generate", CONTENDERS, {"folder": folder, "batch": batch}, turns, "tokens_per_sec", bandwidth_use)


@bench.command
def prepare(*, megabytes: int = 200, turns: Turns = EACH) -> None:
    """A file to token shards on the disk, beside tiktoken's bare encoder.

    Parameters
    ----------
    megabytes
        Size of the text.
    """
    from tokenloom.bench.prepare import CONTENDERS, write_text

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        write_text(text, megabytes * 1_000_000)
        _run("prepare", CONTENDERS, {"text": str(text)}, turns, "mb_per_sec")


@bench.command
def startup(*, turns: Turns = EACH) -> None:
    """How long commands take to begin, beside importing torch."""
    from tokenloom.bench.startup import CONTENDERS

    _run("startup", CONTENDERS, {}, turns, "wall_seconds", less_is_better=True)


@bench.command
def quality(*, data: str = "tinyshakespeare", budget: str = "290s", turns: Turns = EACH) -> None:
    """What training reaches in a given time, in bits per byte of the last tenth of a text.

    Parameters
    ----------
    data
        What to train on.
    budget
        How long each run may take.
    """
    from tokenloom.bench.quality import CONTENDERS

    _run("quality", CONTENDERS, {"data": data, "budget": budget}, turns, "bits_per_byte", less_is_better=True)


def _run(
    work: str,
    contenders: Sequence[Contender],
    options: Mapping[str, Any],
    turns: Turns,
    figure: str,
    share_of: Any = None,
    *,
    less_is_better: bool = False,
) -> None:
    from tokenloom.bench.harness import run_in_turn, table
    from tokenloom.bench.machine import ceilings

    if turns.rounds < 1:
        raise UsageError(f"--rounds must be at least 1, got {turns.rounds}. Try 3.")
    chosen = [one for one in contenders if not turns.only or any(part in one.name for part in turns.only)]
    if not chosen:
        names = ", ".join(one.name for one in contenders)
        raise UsageError(f"no contender is called {' or '.join(turns.only)}. There are: {names}.")
    machine = ceilings()
    outcomes = run_in_turn(work, chosen, options, turns.rounds, lambda line: print(line, file=sys.stderr))
    if turns.json:
        rounds = {one.name: {"rounds": one.rounds, "problem": one.problem} for one in outcomes}
        print(json_format.dumps({"work": work, "options": options, "machine": machine, "contenders": rounds}))
        return
    lines = [_machine_line(machine), "", *table(outcomes, figure, less_is_better=less_is_better)]
    print("\n".join([*lines, *_shares(outcomes, machine, options, share_of)]))


def _machine_line(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}: matrix "
        f"products {machine['fp32_gflops']:,.0f} GFLOP/s in fp32, {machine['bf16_gflops']:,.0f} in bf16, "
        f"memory read at {machine['read_gb_per_s']:.1f} GB/s"
    )


def _shares(
    outcomes: Sequence[Outcome], machine: Mapping[str, Any], options: Mapping[str, Any], share_of: Any
) -> list[str]:
    """Each contender's share of the ceiling that was measured in this run."""
    if share_of is None:
        return []
    lines = [""]
    for outcome in outcomes:
        rate = outcome.median("tokens_per_sec")
        if rate is not None:
            share, ceiling = share_of(outcome.name, rate, machine, options)
            lines.append(f"{outcome.name:26} {share:>6.2f} of {ceiling}")
    return lines
