"""tokenloom bench: benchmarks against installed libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tokenloom.cli.output import print_json, print_progress, print_result
from tokenloom.cli.parameters import Json
from tokenloom.errors import UsageError

if TYPE_CHECKING:
    from tokenloom.bench.harness import Implementation, Options, Result
    from tokenloom.bench.machine import Machine, Utilization

    UtilizationFunction = Callable[[str, float, Machine], Utilization]

bench = App(name="bench", help="Benchmark against installed libraries.")


@Parameter(name="*")
@dataclass(frozen=True)
class CommonOptions:
    """Options of every benchmark."""

    repeats: int = 3
    """Runs of each implementation; results are medians."""
    only: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """Run only implementations whose name contains this. Can be repeated."""
    json: Json = False


DEFAULTS = CommonOptions()


@bench.command
def train(
    *,
    shape: Literal["chapter", "gpt2"] = "chapter",
    seconds: float = 30.0,
    steps: int = 0,
    common: CommonOptions = DEFAULTS,
) -> None:
    """Benchmark training steps of GPT-2 124M at batch 2×256.

    Reports tokens per second and the share of the measured peak FLOP/s.

    Parameters
    ----------
    shape
        chapter (untied head, dropout 0.1) or gpt2 (tied embeddings, no dropout).
    seconds
        Duration of the timed steps.
    steps
        Minimum number of steps in total. If set, the reported loss is the mean of the last ten steps.
    """
    from tokenloom.bench.train import IMPLEMENTATIONS, flops_utilization

    options = {"shape": shape, "seconds": seconds, "steps": steps}
    utilization = partial(flops_utilization, shape=shape)
    _run("train", IMPLEMENTATIONS[shape], options, common, "tokens_per_sec", utilization=utilization)


@bench.command
def generate(*, batch: int = 1, common: CommonOptions = DEFAULTS) -> None:
    """Benchmark greedy decoding with GPT-2 124M: 200 tokens after a prompt of 32.

    Reports tokens per second and the share of the measured memory bandwidth.

    Parameters
    ----------
    batch
        Number of prompts decoded together.
    """
    from tokenloom.bench.generate import IMPLEMENTATIONS, bandwidth_utilization, write_models

    utilization = partial(bandwidth_utilization, batch=batch)
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        options = {"folder": folder, "batch": batch}
        _run("generate", IMPLEMENTATIONS, options, common, "tokens_per_sec", utilization=utilization)


@bench.command
def prepare(*, megabytes: int = 200, common: CommonOptions = DEFAULTS) -> None:
    """Benchmark tokenizing a text to token shards, compared with tiktoken's encoder alone.

    Parameters
    ----------
    megabytes
        Size of the text.
    """
    from tokenloom.bench.prepare import IMPLEMENTATIONS, write_text

    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        write_text(text, megabytes * 1_000_000)
        _run("prepare", IMPLEMENTATIONS, {"text": str(text)}, common, "mb_per_sec")


@bench.command
def loading(*, preset: str = "gpt2-774m", common: CommonOptions = DEFAULTS) -> None:
    """Benchmark loading a model: peak memory as a multiple of the size of its weights.

    Parameters
    ----------
    preset
        Shape of the model, which has random weights.
    """
    from tokenloom.bench.loading import IMPLEMENTATIONS, write_model

    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), preset)
        _run("loading", IMPLEMENTATIONS, {"folder": folder}, common, "memory_ratio", lower_is_better=True)


@bench.command
def startup(*, common: CommonOptions = DEFAULTS) -> None:
    """Benchmark the startup time of commands, compared with importing torch."""
    from tokenloom.bench.startup import IMPLEMENTATIONS

    _run("startup", IMPLEMENTATIONS, {}, common, "wall_seconds", lower_is_better=True)


@bench.command
def quality(*, data: str = "tinyshakespeare", budget: str = "290s", common: CommonOptions = DEFAULTS) -> None:
    """Benchmark the validation bits per byte that training reaches within a time budget.

    Parameters
    ----------
    data
        Training data; the last 10 % is used for validation.
    budget
        Time budget of each run.
    """
    from tokenloom.bench.quality import IMPLEMENTATIONS

    options = {"data": data, "budget": budget}
    _run("quality", IMPLEMENTATIONS, options, common, "bits_per_byte", lower_is_better=True)


@bench.command
def chapter5(*, epochs: int = 2, common: CommonOptions = DEFAULTS) -> None:
    """Benchmark the training loop of the book's chapter 5, compared with the book's own code.

    Also checks that both print the same lines.

    Parameters
    ----------
    epochs
        Epochs of nine steps.
    """
    from tokenloom.bench.chapter5 import IMPLEMENTATIONS, same_output

    results = _run("chapter5", IMPLEMENTATIONS, {"epochs": epochs}, common, "train_seconds", lower_is_better=True)
    if len(results) > 1 and all(result.repeats for result in results):
        print_progress(f"same printed lines: {'yes' if same_output(results) else 'NO'}")


def _run(
    workload: str,
    implementations: Sequence[Implementation],
    options: Options,
    common: CommonOptions,
    metric: str,
    *,
    utilization: UtilizationFunction | None = None,
    lower_is_better: bool = False,
) -> list[Result]:
    from tokenloom.bench.harness import format_table, run_interleaved
    from tokenloom.bench.machine import measure_machine

    if common.repeats < 1:
        raise UsageError(f"--repeats must be at least 1, got {common.repeats}. Try 3.")
    selected = [item for item in implementations if not common.only or any(part in item.name for part in common.only)]
    if not selected:
        names = ", ".join(item.name for item in implementations)
        raise UsageError(f"no implementation matches --only {' '.join(common.only)}. Choose from: {names}.")
    machine = measure_machine()
    results = run_interleaved(workload, selected, options, common.repeats, print_progress)
    if common.json:
        implementations_json = {
            result.name: {"repeats": [repeat.to_json() for repeat in result.repeats], "problem": result.problem}
            for result in results
        }
        output = {
            "workload": workload,
            "options": options,
            "machine": asdict(machine),
            "implementations": implementations_json,
        }
        print_json(output)
        return results
    lines = [_machine_line(machine), "", *format_table(results, metric, lower_is_better=lower_is_better)]
    if utilization is not None:
        lines += ["", *_utilization_lines(results, metric, machine, utilization)]
    print_result("\n".join(lines))
    return results


def _machine_line(machine: Machine) -> str:
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads, torch {machine.torch}. Measured peaks: "
        f"{machine.fp32_gflops:,.0f} GFLOP/s in fp32, {machine.bf16_gflops:,.0f} GFLOP/s in bf16, "
        f"{machine.read_gb_per_s:.1f} GB/s memory reads"
    )


def _utilization_lines(
    results: Sequence[Result], metric: str, machine: Machine, utilization: UtilizationFunction
) -> list[str]:
    lines: list[str] = []
    for result in results:
        rate = result.median(metric)
        if rate is not None:
            used = utilization(result.name, rate, machine)
            lines.append(f"{result.name:26} {used.share:>6.2f} of {used.peak}")
    return lines
