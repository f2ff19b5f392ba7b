"""tokenloom plan: what a run needs in many processes, without starting them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.flags import ModelFlags, SampleLengthFlags, TokenizerFlags, TrainFlags, given
from tokenloom.cli.output import print_json, print_notice, print_result
from tokenloom.cli.parameters import HARDWARE, RUN, Json
from tokenloom.errors import UsageError
from tokenloom.reporting.formatting import byte_count, compact, counted, percent

if TYPE_CHECKING:
    from tokenloom.training.plan import Plan, Ranks

MAX_RANKS = 100_000
_RANKS = re.compile(r"(\d{1,6})(?:x(\d{1,6}))?")
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT])(i?)B?", re.IGNORECASE)
_EXPONENTS = {"K": 1, "M": 2, "G": 3, "T": 4}


def plan(
    *,
    ranks: Annotated[str, Parameter(group=RUN)] = "1",
    memory: Annotated[str, Parameter(group=HARDWARE)] = "80GB",
    preset: Annotated[str | None, Parameter(group=RUN)] = None,
    config: Annotated[Path | None, Parameter(group=RUN)] = None,
    json: Json = False,
    data: TokenizerFlags | None = None,
    model: ModelFlags | None = None,
    train: TrainFlags | None = None,
    sample: SampleLengthFlags | None = None,
) -> None:
    """Show what a run needs in many processes, without starting it: strategy, memory, batch, traffic, checkpoints.

    The settings are those of train. Nothing is allocated and no text is read. Weights, gradients, optimizer state and
    files have the sizes that training gives them; the rest is estimated, for training that is not compiled.

    Parameters
    ----------
    ranks
        Number of processes, or machines x processes on each: 8, 128x8.
    memory
        Memory of each process, such as 80GB or 24GiB. It decides --strategy auto, as free memory does in training.
    preset
        Preset to start from; tokenloom info lists them.
    config
        TOML file with tables [model], [data], [train] and [sample]; overrides the preset.
    """
    machines, per_machine, available = *_parsed_ranks(ranks), _parsed_bytes(memory)
    settings = {"model": given(model), "data": given(data), "train": given(train), "sample": given(sample)}
    from tokenloom.training.plan import Ranks, make_plan

    made = make_plan(Ranks(machines, per_machine), available, preset=preset, config=config, settings=settings)
    if json:
        print_json(made.to_json())
    else:
        print_result("\n".join(_lines(made)))
    if not made.fits:
        print_notice(
            f"it does not fit: {byte_count(made.peak)} of {byte_count(made.available)}. Use more --ranks with "
            "--strategy fsdp, --train.micro-batch-size 1, --train.activation-checkpointing, or no samples "
            "(--sample.max-new-tokens 0)."
        )


def _parsed_ranks(text: str) -> tuple[int, int]:
    """Machines, and processes on each."""
    found = _RANKS.fullmatch(text.strip())
    numbers = [int(number) for number in found.groups(default="1")] if found else [0]
    if not 1 <= min(numbers) <= numbers[0] * numbers[-1] <= MAX_RANKS:
        raise UsageError(
            f'--ranks "{text}" is not a number of processes from 1 to {MAX_RANKS:,}. '
            "Write it as 8, or as machines x processes on each: 128x8."
        )
    return (numbers[0], numbers[1]) if "x" in text else (1, numbers[0])


def _parsed_bytes(text: str) -> int:
    found = _BYTES.fullmatch(text.strip())
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** _EXPONENTS[found[2].upper()]) if found else 0
    if count < 1:
        raise UsageError(f'--memory "{text}" is not a size. Write a number and a unit, such as 80GB or 24GiB.')
    return count


def _lines(plan: Plan) -> Iterator[str]:
    yield f"processes    {_processes(plan.ranks)}, for {plan.hardware.device} in {plan.hardware.precision}"
    yield f"model        {compact(plan.parameters)} parameters, context {plan.block_size:,}"
    yield f"strategy     {_strategy(plan)}"
    yield from _batch_lines(plan)
    yield ""
    yield from _table("memory of a process", _memory_rows(plan))
    yield ""
    if plan.ranks.count > 1:
        yield from _table("received by a process in each step", _traffic_rows(plan))
        yield ""
    yield from _table("checkpoint", _checkpoint_rows(plan))


def _processes(ranks: Ranks) -> str:
    if ranks.machines == 1:
        return counted(ranks.count, "process", "processes")
    return f"{ranks.count:,} on {ranks.machines:,} machines, {ranks.per_machine:,} on each"


def _strategy(plan: Plan) -> str:
    if plan.strategy is None:
        return "none: one process has the whole model"
    if not plan.is_automatic:
        return f"fsdp, {counted(plan.replicas, 'replica')}" if plan.strategy == "fsdp" else plan.strategy
    verdict = "does not fit into" if plan.strategy == "fsdp" else "fits into"
    return (
        f"{plan.strategy}: a process with the whole model needs {byte_count(plan.ddp_bytes)}, which {verdict} "
        f"{byte_count(plan.available)} (--memory)"
    )


def _batch_lines(plan: Plan) -> Iterator[str]:
    batch = plan.batch
    yield f"batch        {counted(batch.size, 'sequence')}, {compact(plan.tokens_per_step)} tokens in each step"
    yield (
        f"             {counted(batch.per_process, 'sequence')} in each process, "
        f"{counted(batch.accumulation, 'micro-batch', 'micro-batches')} of {batch.micro_batch:,}"
    )
    if plan.chosen_batch is not None:
        yield (
            f"             the preset's {plan.chosen_batch:,} cannot be divided by {batch.processes:,} processes: "
            f"train with --train.batch-size {batch.size}"
        )
    if batch.multiple_of > 1:
        sizes = ", ".join(f"{size:,}" for size in batch.nearest(4))
        yield f"             sizes that can be divided: {sizes} and other multiples of {batch.multiple_of:,}"


def _memory_rows(plan: Plan) -> Iterator[tuple[str, int, str]]:
    memory, shards = plan.memory, plan.shards
    spread = "" if shards is None else counted(shards.largest, "value")
    if shards is not None and shards.smallest < shards.largest:
        spread = f"{shards.smallest:,} to {spread}"
    if shards is not None and shards.empty:
        spread += f"; {shards.empty:,} processes lack rows of some tensor, padding is {percent(shards.padding)}"
    other = memory.activations if memory.recomputes else memory.activations_recomputed
    kept = memory.activations_recomputed if memory.recomputes else memory.activations
    alternative = "without" if memory.recomputes else "with"
    peak_note = "" if memory.recomputes else f"{byte_count(memory.total_recomputed)} with activation checkpointing"
    yield "weights", memory.weights, spread
    yield "gradients", memory.gradients, ""
    yield "optimizer state", memory.optimizer_state, ""
    if plan.strategy == "fsdp":
        yield "gathered", memory.gathered, "weights of other processes, and gradients not yet divided"
    if memory.converted:
        yield "converted weights", memory.converted, f"copies in {plan.hardware.precision}"
    yield "activations", kept, f"{byte_count(other)} {alternative} activation checkpointing"
    yield "output head", memory.output_head, "logits of a chunk, and gradients"
    if memory.update:
        yield "Muon's update", memory.update, "after the activations are freed"
    yield "peak", memory.total, peak_note
    if plan.samples:
        yield "samples", plan.samples, "rank 0 has the whole model meanwhile; --sample.max-new-tokens 0 disables them"


def _traffic_rows(plan: Plan) -> Iterator[tuple[str, int, str]]:
    traffic = plan.traffic
    rows = [
        ("all-gather", traffic.all_gather, "weights, in fp32"),
        ("reduce-scatter", traffic.reduce_scatter, "gradients, in fp32"),
        ("all-reduce", traffic.all_reduce, "gradients, in fp32"),
        ("Muon's gather", traffic.muon_gather, "matrices to the process that orthogonalizes them"),
        ("Muon's scatter", traffic.muon_scatter, "and back"),
    ]
    yield from (row for row in rows if row[1])
    yield "total", traffic.total, ""
    if plan.ranks.machines > 1:
        yield "a machine", traffic.machine, "from the other machines, at least"


def _checkpoint_rows(plan: Plan) -> Iterator[tuple[str, int, str]]:
    checkpoint = plan.checkpoint
    shards = counted(checkpoint.shards, "file")
    yield "weights", checkpoint.weights, shards
    yield "optimizer state", checkpoint.optimizer, shards
    empty = f", {checkpoint.without_tensors:,} of them without a tensor" if checkpoint.without_tensors else ""
    yield "total", checkpoint.total, f"{counted(checkpoint.files, 'file')}{empty}"
    if checkpoint.shards > 1:
        yield "a process", checkpoint.largest_share, "is the most that one of them writes"
    yield "disk", plan.disk, "all checkpoints that are kept, and those that are being written"


def _table(title: str, rows: Iterator[tuple[str, int, str]]) -> Iterator[str]:
    yield title
    for name, size, note in rows:
        yield f"  {name:<18} {byte_count(size):>11}  {note}".rstrip()
