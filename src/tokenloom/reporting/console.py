"""What a person sees on the terminal while a model trains, and when it is done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, Self

from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.messages import (
    BITS_BASELINES,
    PLAIN_WIDTH,
    clock_time,
    compact,
    duration,
    sparkline,
    summary_lines,
    visible,
)
from tokenloom.reporting.progress import progress_bar, progress_counter
from tokenloom.reporting.terminal import can_draw, encodable, stderr_console
from tokenloom.run_records import RunPlan, RunSummary, SampleRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

# Everything that a command shows on the terminal is found here, wherever it is made.
__all__ = ["Display", "QuietDisplay", "TrainingDisplay", "progress_bar", "progress_counter"]

SAMPLE_LINES = 6


class Display(Protocol):
    """Whatever is told how training goes; as it stands, it does nothing with what it is told."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, plan: Mapping[str, Any] | RunPlan) -> None:
        """Training is about to begin."""
        return

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        """A step is done; `loss` in nats per token."""
        return

    def recorded(self, record: Mapping[str, Any] | MetricsRecord) -> None:
        """A record was written to metrics.jsonl."""
        return

    def sampled(self, sample: Mapping[str, Any] | SampleRecord) -> None:
        """A sample was written to samples.jsonl."""
        return

    def notice(self, text: str) -> None:
        """Something that a person should know."""
        return

    def replanned(self, max_steps: int) -> None:
        """There will be another number of steps than was planned."""
        return

    def finished(self, summary: Mapping[str, Any] | RunSummary) -> None:
        """Training is done."""
        return

    def close(self) -> None:
        """Nothing more will come; may be called twice."""
        return


class QuietDisplay(Display):
    """A display that shows nothing."""


class TrainingDisplay(Display):
    """Training as a live line on a terminal or in a notebook, and as plain lines, one a record, anywhere else.

    `started` prints what will be done, `recorded` and `sampled` what came out on the way, `finished` the closing words
    of `summary_lines`. `stepped` only remembers, so that it may be called at every step.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or stderr_console()
        self._clock = clock
        self._is_live = can_draw(self.console)
        self._live: Live | None = None
        self._plan: Mapping[str, Any] = {}
        self._step = 0
        self._rate: float | None = None
        self._anchor: tuple[float, int] | None = None  # when the first step was done, and which it was
        self._losses = _LossHistory()
        self._last: dict[str, float] = {}
        self._best_val_loss = math.inf

    def started(self, plan: Mapping[str, Any] | RunPlan) -> None:
        plan = asdict(plan) if isinstance(plan, RunPlan) else plan
        self._plan = plan
        self._step = plan.get("first_step") or 0
        for name, text in _plan_lines(plan):
            self._say(f"{name:<8} {text}", style="bold" if name == "run" else "")
        if self._is_live:
            from rich.live import Live

            # stdout stays untouched: with --json it carries the result.
            self._live = Live(
                get_renderable=self._panel,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )
            self._say("")
            self._live.start()

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        self._step = step
        self._rate = tokens_per_sec
        self._anchor = self._anchor or (self._clock(), step)
        self._losses.add(loss)

    def replanned(self, max_steps: int) -> None:
        self._plan = {**self._plan, "max_steps": max_steps}

    def recorded(self, record: Mapping[str, Any] | MetricsRecord) -> None:
        record = record.to_json() if isinstance(record, MetricsRecord) else record
        self._last |= {key: value for key, value in record.items() if isinstance(value, int | float)}
        val_loss = record.get("val/loss")
        is_best = val_loss is not None and val_loss < self._best_val_loss < math.inf
        self._best_val_loss = min(self._best_val_loss, val_loss if val_loss is not None else math.inf)
        if not self._is_live:
            self._say(self._record_line(record, is_best))
        elif val_loss is not None:
            # The panel below tells rate and time left.
            self._say(self._record_line({**self._last, "tokens_per_sec": None}, is_best, hurry=False))

    def sampled(self, sample: Mapping[str, Any] | SampleRecord) -> None:
        sample = asdict(sample) if isinstance(sample, SampleRecord) else sample
        prompt, completion = visible(str(sample.get("prompt", ""))), visible(str(sample.get("text", "")))
        if self._is_live:
            self._print(_sample_block(prompt, completion, self.console))
        else:
            self._say("  writes  " + " ".join((prompt + completion).split()))

    def notice(self, text: str) -> None:
        self._say(text, style="yellow", whole=True)

    def finished(self, summary: Mapping[str, Any] | RunSummary) -> None:
        summary = asdict(summary) if isinstance(summary, RunSummary) else summary
        self.close()
        for line in summary_lines(summary, self._plan.get("baselines")):
            self._say(line, whole=True)

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _say(self, line: str, style: str = "", *, whole: bool = False) -> None:
        """Print a line; off a terminal it is cut to the width of a page unless it must stay `whole`."""
        from rich.text import Text

        text = Text(visible(line), style=style if self._is_live else "")
        if not self._is_live and not whole:
            text.truncate(PLAIN_WIDTH, overflow="ellipsis")
        self._print(text)

    def _print(self, text: Text) -> None:
        text.plain = encodable(text.plain, self.console.encoding)
        self.console.print(text, soft_wrap=not self._is_live, highlight=False)

    def _record_line(self, record: Mapping[str, Any], is_best: bool, *, hurry: bool = True) -> str:
        """The figures of a record, the most telling first, as many as fit a line."""
        total = self._plan.get("max_steps")
        step = f"{record.get('step', self._step):,}"
        of_total = f"/{total:,}" if total else ""
        parts = [f"step {step:>{len(f'{total or 0:,}')}}{of_total}"]
        parts += _figures(record)
        parts += ["best"] if is_best else []
        if record.get("tokens_per_sec"):
            parts.append(f"{compact(record['tokens_per_sec'])} tok/s")
        left = self._seconds_left()
        if hurry and left is not None:
            parts.append(f"{clock_time(left)} left")
        line = ""
        for part in parts:
            extended = f"{line}  {part}" if line else part
            line = extended if len(extended) <= PLAIN_WIDTH else line
        return line

    def _seconds_left(self) -> float | None:
        """Time for the steps to come at the pace of those done, evaluations included."""
        total = self._plan.get("max_steps")
        if self._anchor is None or not total or self._step <= self._anchor[1]:
            return None
        began, first = self._anchor
        return (self._clock() - began) / (self._step - first) * max(0, total - self._step)

    def _panel(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        total = self._plan.get("max_steps") or max(1, self._step)
        left = self._seconds_left()
        progress = [
            f"{self._step / total:.0%}",
            f"step {self._step:,}/{total:,}",
            f"{compact(self._rate)} tok/s" if self._rate else "warming up",
            f"{clock_time(left)} left" if left is not None else "",
        ]
        first = Table.grid(expand=True)
        first.add_column(ratio=1)
        first.add_column(no_wrap=True, overflow="ellipsis")
        first.add_row(ProgressBar(total=total, completed=self._step), Text("  " + "  ".join(filter(None, progress))))
        figures = Text("  " + "  ".join(_figures({**self._last, "train/loss": self._losses.latest})))
        second = Table.grid(expand=True)
        second.add_column(ratio=1, no_wrap=True, overflow="crop")
        second.add_column(no_wrap=True, overflow="ellipsis")
        width = max(1, self.console.width - figures.cell_len)
        marks = " .:-=+*#" if self.console.options.ascii_only else "▁▂▃▄▅▆▇█"
        second.add_row(Text(sparkline(self._losses.values(), width, marks), style="cyan"), figures)
        return Group(first, second)


class _LossHistory:
    """The losses of a whole run in bounded memory: neighbours are averaged as it grows."""

    limit = 256

    def __init__(self) -> None:
        self.latest: float | None = None
        self._means: list[float] = []
        self._pending: list[float] = []
        self._stride = 1

    def add(self, loss: float) -> None:
        self.latest = loss
        self._pending.append(loss)
        if len(self._pending) < self._stride:
            return
        self._means.append(sum(self._pending) / len(self._pending))
        self._pending.clear()
        if len(self._means) == self.limit:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._stride *= 2

    def values(self) -> list[float]:
        return list(self._means)


def _plan_lines(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What will be done, as (name, text)."""
    train, val = plan.get("train_tokens"), plan.get("val_tokens")
    counts = [f"{compact(train)} tokens to train on"] if train else []
    counts += [f"{compact(val)} to validate"] if val else []
    flops = plan.get("flops_per_token")
    model = [f"{compact(plan['parameters'])} parameters"] if plan.get("parameters") else []
    model += [f"{compact(flops)} FLOPs a token"] if flops else []
    machine = [str(plan[key]) for key in ("device", "precision") if plan.get(key)]
    machine += [f"{plan['threads']} threads"] if plan.get("threads") else []
    known = {name: (plan.get("baselines") or {}).get(key) for key, name in BITS_BASELINES.items()}
    to_beat = ", ".join(f"{name} {value:.2f}" for name, value in known.items() if value is not None)
    lines = {
        "run": str(plan.get("run") or ""),
        "data": ": ".join(filter(None, [str(plan.get("data") or ""), ", ".join(counts)])),
        "windows": _windows(plan),
        "model": ", ".join(model),
        "machine": ", ".join(machine),
        "plan": _schedule_line(plan),
        "needs": ", ".join(_needs(plan)),
        "to beat": f"{to_beat} bits/byte" if to_beat else "",
    }
    return [(name, text) for name, text in lines.items() if text]


def _windows(plan: Mapping[str, Any]) -> str:
    if not plan.get("windows"):
        return ""
    train, batch, val = (plan[key] for key in ("windows", "batch_size", "validation_windows"))
    return f"{train:,} to train on, {batch:,} in a batch, {val:,} to validate"


def _needs(plan: Mapping[str, Any]) -> list[str]:
    """Memory and time, as far as they can be known beforehand."""
    memory, seconds = plan.get("memory_bytes"), plan.get("estimated_seconds")
    known = [f"about {memory / 1e9:.1f} GB of memory"] if memory else []
    return [*known, f"about {duration(seconds)}"] if seconds and not plan.get("budget_seconds") else known


def _schedule_line(plan: Mapping[str, Any]) -> str:
    steps, each, train = plan.get("max_steps"), plan.get("tokens_per_step"), plan.get("train_tokens")
    parts = [f"{steps:,} steps of {each:,} tokens" if steps and each else f"{steps:,} steps" if steps else ""]
    if steps and each and train:
        parts.append(f"{compact(steps * each / train)} epochs")
    if plan.get("budget_seconds"):
        parts.append(f"within {duration(plan['budget_seconds'])}")
    if plan.get("first_step"):
        parts.append(f"going on after step {plan['first_step']:,}")
    return ", ".join(filter(None, parts))


def _figures(record: Mapping[str, Any]) -> list[str]:
    formats = {"train/loss": "train {:.3f}", "val/loss": "val {:.3f}", "val/bits_per_byte": "{:.2f} bits/byte"}
    return [text.format(record[key]) for key, text in formats.items() if record.get(key) is not None]


def _sample_block(prompt: str, completion: str, console: Console) -> Text:
    """The first lines of a sample behind a bar, its prompt in bold."""
    from rich.text import Text

    whole = Text.assemble((prompt, "bold"), (completion, "dim"))
    whole.expand_tabs(4)
    lines = list(whole.wrap(console, max(8, min(console.width, 100) - 4)))
    shown = lines[:SAMPLE_LINES] + ([Text("…", style="dim")] if len(lines) > SAMPLE_LINES else [])
    return Text("\n").join(Text.assemble(("  │ ", "cyan"), line) for line in shown)
