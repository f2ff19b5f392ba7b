"""Measures what this machine can measure, and writes benchmarks/RESULTS.md from the files in benchmarks/data.

    python benchmarks/results.py --list
    python benchmarks/results.py --minutes 20              # parts that this machine has not measured yet, then writes
    python benchmarks/results.py --refresh step train      # measure these for this commit
    python benchmarks/results.py --write-only

What is finished is added to data/results.jsonl at once, so that a call continues where the one before stopped, also
within a part of several records, and nothing is started that would not end within --minutes. data/recipe.jsonl has the
runs of recipe.py, data/serving.jsonl those of serving.py, data/budgets.jsonl those of budgets.py, and
data/earlier.jsonl has figures that were measured before these files existed. Nothing in RESULTS.md is written by hand.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import budgets
import records
import serving
from result_tables import bench_table, markdown, page_table, recipe_tables, row_table

DOCUMENT = records.ROOT / "benchmarks" / "RESULTS.md"

INTRODUCTION = (
    "`python benchmarks/results.py` measures what this machine can measure, and writes this file from the records in",
    "`data`. Every table names its machine; the command is in the same line or the text above, unless a note says that",
    "there was none. Figures are medians, or of a single run. The machines are shared, so times vary: ratios within a",
    "table, whose rows were measured in turn, are more reliable than times.",
)
SERVING_TEXT = (
    "`python benchmarks/serving.py --llama FOLDER`: tokens per second of all streams together, over HTTP, with random",
    "weights and as many threads as cores. llama.cpp is its own server, from the wheel of xllamacpp, with a slot for",
    "each stream (continuous batching). A training step is timed beside a server of its run that is suspended or idle,",
    "in turn ([decision 16](../docs/decisions/0016-server.md)).",
)
BUDGET_TEXT = (
    "`python benchmarks/budgets.py`: the wall-clock time of `tokenloom train SOURCE --budget T`, from the start of the",
    "process to its end, on an idle machine and beside a busy loop on each core; with an empty cache, so that text is",
    "prepared, and blocks are compiled in long runs, and with the cache of that run. Goals are deviations of at most",
    "5 % on an idle machine and 15 % on a busy one; runs that miss them are marked. Each is a single run.",
)
RECIPE_TEXT = (
    "`python benchmarks/recipe.py SERIES`: one core for each run, bits per byte over the whole validation text, losses",
    "in nats per token. `120s` and `300s` are seconds of the core; `2m` stands for 240 s and `5m` for 580 or 600 s,",
    "which is what two cores do in about half the time. Distances are to the best variant that is not the rule. A",
    "rule's name has a hash of its constants, then what it chose",
    "([decision 14](../docs/decisions/0014-rule-of-a-time-budget.md)).",
)


@dataclass(frozen=True)
class Part:
    """A command, and how its results become a table. With --json its output is the result."""

    name: str
    minutes: float
    """That a record takes."""
    command: str
    table: Callable[[Sequence[dict]], list[str]]
    records: int = 1
    """Of the whole part. A command with --json is called so often with --repeats 1; another one takes --minutes, adds
    several, and continues where it stopped."""


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    parts: tuple[Part, ...] = ()


ROUNDS = 3  # calls of `tokenloom bench`, each recorded when it ends
tokens_per_sec = partial(bench_table, metric="tokens_per_sec", unit="tokens/s")
STEP_COLUMNS = {
    "this commit": "{case}",
    "before, tokens/s": "{tokens_per_sec_before:,}",
    "now, tokens/s": "{tokens_per_sec:,}",
    "times as fast, median and range": "{ratio:.2f} ({lowest:.2f} to {highest:.2f})",
}
RUN_COLUMNS = {
    "steps": "{steps:,}",
    "tokens/s": "{tokens_per_sec:,.0f}",
    "nats/token": "{val_loss:.3f}",
    "bits per byte": "{val_bits_per_byte:.3f}",
}
SHAKESPEARE_COLUMNS = RUN_COLUMNS | {"training loss": "{train_loss:.3f}", "peak memory": "{peak_memory_mb:,.0f} MB"}
DEFAULT_COLUMNS = {"": "{commit}", "budget": "{budget}", "wall-clock": "{wall_seconds:.0f} s", **RUN_COLUMNS}

SECTIONS = {
    "default": Section(
        "The default run",
        "`tokenloom train` of this commit, and of the last one before the modern family became Qwen3, one after the "
        "other.",
        (
            Part(
                "default",
                3,
                "benchmarks/compare_commits.py default",
                partial(row_table, columns=DEFAULT_COLUMNS),
                records=2,
            ),
        ),
    ),
    "shakespeare": Section(
        "tinyshakespeare, 290 seconds and 20 minutes",
        "The first 90 % are for training; the validation loss is over the whole last 10 %. The run of 20 minutes at "
        "commit 13196da took 18 minutes and 2 seconds, because other programs ran while its plan was reviewed before "
        "the decay of the learning rate. Since then the plan is also reviewed in the decay "
        "([decision 28](../docs/decisions/0028-plan-changes-in-the-decay.md)).",
        (
            Part(
                "shakespeare",
                6,
                "tokenloom train tinyshakespeare --budget 290s --json",
                partial(row_table, columns=SHAKESPEARE_COLUMNS),
            ),
            Part(
                "shakespeare-20m",
                21,
                "tokenloom train tinyshakespeare --budget 20m --json",
                partial(row_table, columns=SHAKESPEARE_COLUMNS),
            ),
        ),
    ),
    "step": Section(
        "Training steps of the modern family",
        "The last commit before the modern family became Qwen3, with its default (4x256 and a bigram table, 16x256 "
        "tokens), and this commit train in turn, each in its own process.",
        (Part("step", 2, "benchmarks/compare_commits.py step", partial(row_table, columns=STEP_COLUMNS), records=6),),
    ),
    "train": Section(
        "Training steps of GPT-2 124M",
        "Batches of 2x256 tokens. First the model of the book's chapter 5 (162M parameters) next to the book's own "
        "code, `llms-from-scratch`; then tied embeddings without dropout.",
        (
            Part("train", 3, "tokenloom bench train --json", tokens_per_sec, ROUNDS),
            Part("train-gpt2", 4, "tokenloom bench train --shape gpt2 --json", tokens_per_sec, ROUNDS),
        ),
    ),
    "generate": Section(
        "Decoding with GPT-2 124M",
        "200 greedy tokens after a prompt of 32, one prompt or 16 together.",
        (
            Part("generate", 4, "tokenloom bench generate --json", tokens_per_sec, ROUNDS),
            Part("generate-16", 4, "tokenloom bench generate --batch 16 --json", tokens_per_sec, ROUNDS),
        ),
    ),
    "prepare": Section(
        "Preparing text",
        "With GPT-2's tokenizer and two workers, next to tiktoken's `encode_ordinary_batch` on two threads.",
        (
            Part(
                "prepare",
                2,
                "tokenloom bench prepare --json",
                partial(bench_table, metric="mb_per_sec", unit="MB/s", digits=1),
                ROUNDS,
            ),
        ),
    ),
    "resume": Section("Exact resume", "A run that was killed and resumed, compared with one that was not."),
    "loading": Section(
        "Loading weights",
        "Random weights in fp32 safetensors, loaded in a separate process.",
        (
            Part(
                "loading",
                2,
                "tokenloom bench loading --json",
                partial(bench_table, metric="memory_ratio", unit="peak / weights", digits=3, lower_is_better=True),
                ROUNDS,
            ),
        ),
    ),
    "startup": Section(
        "Startup",
        "Commands that do little, next to importing torch.",
        (
            Part(
                "startup",
                1,
                "tokenloom bench startup --json",
                partial(bench_table, metric="wall_seconds", unit="seconds", digits=2, lower_is_better=True),
                ROUNDS,
            ),
        ),
    ),
    "chapter5": Section(
        "Chapter 5",
        "The figures of the book's chapter 5, and the time of its training loop with evaluations and samples, next to "
        "the book's own code, which prints the same lines.",
        (
            Part(
                "chapter5",
                2,
                "tokenloom bench chapter5 --epochs 1 --json",
                partial(bench_table, metric="train_seconds", unit="seconds", digits=1, lower_is_better=True),
                ROUNDS,
            ),
        ),
    ),
    "page": Section(
        "The page",
        "What `tokenloom serve` and its page take, and what they cost a training that they follow.",
        (Part("page", 2, "benchmarks/page.py", page_table, records=10),),
    ),
    "parity": Section("Parity with transformers", "The same weights in both, in both directions."),
    "gguf": Section("GGUF in llama.cpp", 'Greedy tokens after "Every effort moves you", compared with Tokenloom\'s.'),
}
PARTS = {part.name: part for section in SECTIONS.values() for part in section.parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the parts")
    parser.add_argument("--minutes", type=float, default=20, help="start nothing that would end later")
    parser.add_argument("--refresh", nargs="+", choices=PARTS, help="measure these, if this commit was not measured")
    parser.add_argument("--write-only", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.list:
        for part in PARTS.values():
            print(f"{part.name:16} about {part.records * part.minutes:2} min  {part.command}")
        return
    if not options.write_only:
        for _ in measure(options.refresh or unfinished_parts(), time.time() + 60 * options.minutes):
            write()
    write()


def unfinished_parts() -> list[str]:
    """Those that this machine has not measured completely."""
    recorded, machine = records.read(records.RESULTS), records.machine()
    return [
        part.name
        for part in PARTS.values()
        if len(dict(newest_by_machine(recorded, part)).get(machine, ())) < part.records
    ]


def measure(names: Iterable[str], end: float) -> Iterator[str]:
    """Run the commands of parts that this commit lacks until `end` (`time.time`); yields the part after each call."""
    for part in (PARTS[name] for name in names):
        if len(records.measured(part.name)) >= part.records:
            print(f"{part.name}: this commit has been measured", file=sys.stderr)
            continue
        while len(records.measured(part.name)) < part.records:
            minutes = (end - time.time()) / 60
            if part.minutes > minutes:
                print(f"{part.name}: left out, because it takes about {part.minutes} minutes", file=sys.stderr)
                break
            goes_on = call(part, minutes)
            yield part.name
            if not goes_on:
                break


def call(part: Part, minutes: float) -> bool:
    """Run the command of a part, and record its output; whether it succeeded and may be called for the next record."""
    print(f"{part.name}: {part.command}", file=sys.stderr, flush=True)
    arguments = shlex.split(part.command.replace("tokenloom", "-m tokenloom"))
    has_output = "--json" in arguments
    if part.records > 1:
        arguments += ["--repeats", "1"] if has_output else ["--minutes", f"{minutes:.1f}"]
    output = subprocess.PIPE if has_output else None
    process = subprocess.run([sys.executable, *arguments], cwd=records.ROOT, text=True, stdout=output)
    if process.returncode:
        print(f"{part.name}: failed with {process.returncode}", file=sys.stderr)
    elif has_output:
        records.append(part.name, json.loads(process.stdout))
    return has_output and not process.returncode


def write() -> None:
    DOCUMENT.write_text(render(), encoding="utf-8")


def render() -> str:
    """RESULTS.md, from the files in the data folder."""
    measured, earlier = records.read(records.RESULTS), records.read(records.DATA / "earlier.jsonl")
    lines = ["# Results", "", *INTRODUCTION]
    for key, section in SECTIONS.items():
        lines += ["", f"## {section.title}", "", section.text]
        without_tables = len(lines)
        for part in section.parts:
            for machine, newest in newest_by_machine(measured, part):
                origin = f"{machine}; commit {newest[-1]['commit']}, {newest[-1]['date']}"
                lines += ["", f"`{part.command}` ({origin})", "", *part.table([record["result"] for record in newest])]
        for table in earlier:
            if table["section"] == key:
                command = f"`{table['command']}` " if table["command"] else ""
                lines += ["", f"{command}({table['machine']})", "", *markdown(table["columns"], table["rows"])]
                lines += ["", *table["notes"]] if table["notes"] else []
        lines += ["", "Not measured yet."] if len(lines) == without_tables else []
    if tables := serving.tables(records.read(records.DATA / "serving.jsonl")):
        lines += ["", "## Serving", "", *SERVING_TEXT]
        for table in tables:
            lines += ["", *table]
    if tables := budgets.tables(records.read(records.DATA / "budgets.jsonl")):
        lines += ["", "## How closely a run ends at its time budget", "", *BUDGET_TEXT]
        for table in tables:
            lines += ["", *table]
    lines += ["", "## Runs behind the rule of a time budget", "", *RECIPE_TEXT]
    lines += recipe_tables(records.read(records.DATA / "recipe.jsonl"))
    return "\n".join(lines) + "\n"


def newest_by_machine(measured: Iterable[dict], part: Part) -> list[tuple[str, list[dict]]]:
    """The records of the last commit at which each machine measured a part, if possible as a whole."""
    by_machine: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for record in measured:
        if record["part"] == part.name:
            by_machine[record["machine"]][record["commit"]].append(record)
    newest: list[tuple[str, list[dict]]] = []
    for machine, by_commit in by_machine.items():
        whole = [mine for mine in by_commit.values() if len(mine) >= part.records]
        newest.append((machine, (whole or list(by_commit.values()))[-1]))
    return newest


if __name__ == "__main__":
    main()
