"""Training on the terminal: the plan, a live progress panel or plain lines, samples, and the summary."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from tokenloom.metrics import METRICS, Metric, MetricsRecord
from tokenloom.reporting.formatting import (
    byte_count,
    clock_time,
    compact,
    counted,
    duration,
    percent,
    sparkline,
    visible,
)
from tokenloom.reporting.messages import LINE_WIDTH, bits_per_byte_levels, summary_lines
from tokenloom.reporting.progress import WINDOWS, ProgressDisplay
from tokenloom.reporting.terminal import can_draw, encodable, stderr_console
from tokenloom.run_records import RunPlan, RunSummary, SampleRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

SAMPLE_LINES = 6
FINAL_EVALUATION = "evaluating on the whole validation text"
THROUGHPUT = METRICS["tokens_per_sec"]


class TrainingDisplay:
    """Training as a live panel on a terminal, and as plain lines, one per record, elsewhere.

    `started` prints the plan, `recorded` and `sampled` the results on the way, `finished` the summary. `stepped` only
    stores its arguments, so it may be called at every step.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or stderr_console()
        self._clock = clock
        self._is_live = can_draw(self.console)
        self._live: Live | None = None
        self._evaluation: ProgressDisplay | None = None
        """The progress of the final evaluation."""
        self._plan: RunPlan | None = None
        self._step = 0
        self._rate: float | None = None
        self._first_step: tuple[float, int] | None = None
        """When the first step of this session finished, and its number."""
        self._losses = _LossHistory()
        self._latest: MetricsRecord | None = None
        self._best_val_loss = math.inf

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, plan: RunPlan) -> None:
        self._plan = plan
        self._step = plan.first_step
        for name, text in plan_lines(plan):
            self._print_line(f"{name:<9} {text}", style="bold" if name == "run" else "")
        if self._is_live:
            from rich.live import Live

            # stdout is left alone: with --json it carries the result.
            self._live = Live(
                get_renderable=self._panel,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
            )
            self._print_line("")
            self._live.start()

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        self._step = step
        self._rate = tokens_per_sec
        self._first_step = self._first_step or (self._clock(), step)
        self._losses.add(loss)

    def replanned(self, max_steps: int) -> None:
        if self._plan is not None:
            self._plan = replace(self._plan, max_steps=max_steps)

    def recorded(self, record: MetricsRecord) -> None:
        self._latest = self._latest.updated(record) if self._latest else record
        val_loss = record.val_loss
        is_best = val_loss is not None and val_loss < self._best_val_loss < math.inf
        self._best_val_loss = min(self._best_val_loss, val_loss if val_loss is not None else math.inf)
        if not self._is_live:
            pace = [_figure(THROUGHPUT, record.tokens_per_sec)] if record.tokens_per_sec else []
            self._print_line(self._record_line(record, is_best, [*pace, *self._time_left()]))
        elif val_loss is not None:
            # The panel shows throughput and time left.
            self._print_line(self._record_line(self._latest, is_best, []))

    def sampled(self, sample: SampleRecord) -> None:
        prompt, completion = visible(sample.prompt), visible(sample.text)
        if self._is_live:
            self._print(_sample_block(prompt, completion, self.console))
        else:
            self._print_line("  sample  " + " ".join((prompt + completion).split()))

    def notice(self, text: str) -> None:
        self._print_line(text, style="yellow", truncate=False)

    def evaluated(self, done: int, total: int) -> None:
        if self._evaluation is None:
            self.close()
            self._evaluation = ProgressDisplay(WINDOWS, self.console, clock=self._clock)
        self._evaluation(FINAL_EVALUATION, done, total)

    def finished(self, summary: RunSummary) -> None:
        self.close()
        for line in summary_lines(summary, self._plan.baselines if self._plan else None):
            self._print_line(line, truncate=False)

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
        evaluation, self._evaluation = self._evaluation, None
        if evaluation is not None:
            evaluation.__exit__()

    def _print_line(self, line: str, style: str = "", *, truncate: bool = True) -> None:
        """Print a line; unless on a terminal, it is truncated to `LINE_WIDTH` if `truncate`."""
        from rich.text import Text

        text = Text(visible(line), style=style if self._is_live else "")
        if truncate and not self._is_live:
            text.truncate(LINE_WIDTH, overflow="ellipsis")
        self._print(text)

    def _print(self, text: Text) -> None:
        text.plain = encodable(text.plain, self.console.encoding)
        self.console.print(text, soft_wrap=not self._is_live, highlight=False)

    def _record_line(self, record: MetricsRecord, is_best: bool, pace: list[str]) -> str:
        """The figures of a record, the most important first, as many as fit a line."""
        total = f"{self._plan.max_steps:,}" if self._plan else ""
        step = f"{record.step:>{len(total)},}"
        parts = [f"step {step}/{total}" if total else f"step {step}", *record_figures(record)]
        parts += [*(["best"] if is_best else []), *pace]
        line = ""
        for part in parts:
            extended = f"{line}  {part}" if line else part
            line = extended if len(extended) <= LINE_WIDTH else line
        return line

    def _time_left(self) -> list[str]:
        """Time for the remaining steps at the pace of this session, evaluations included."""
        if self._plan is None or self._first_step is None or self._step <= self._first_step[1]:
            return []
        start, step = self._first_step
        seconds = (self._clock() - start) / (self._step - step) * max(0, self._plan.max_steps - self._step)
        return [f"{clock_time(seconds)} left"]

    def _panel(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        total = self._plan.max_steps if self._plan else max(1, self._step)
        rate = _figure(THROUGHPUT, self._rate) if self._rate else "warming up"
        progress = [f"{self._step / total:.0%}", f"step {self._step:,}/{total:,}", rate, *self._time_left()]
        bar = Table.grid(expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, overflow="ellipsis")
        bar.add_row(ProgressBar(total=total, completed=self._step), Text("  " + "  ".join(progress)))
        figures = Text("  " + "  ".join(record_figures(self._latest, train_loss=self._losses.latest)))
        losses = Table.grid(expand=True)
        losses.add_column(ratio=1, no_wrap=True, overflow="crop")
        losses.add_column(no_wrap=True, overflow="ellipsis")
        width = max(1, self.console.width - figures.cell_len)
        marks = " .:-=+*#" if self.console.options.ascii_only else "▁▂▃▄▅▆▇█"
        losses.add_row(Text(sparkline(self._losses.values(), width, marks), style="cyan"), figures)
        return Group(bar, losses)


class _LossHistory:
    """The losses of a whole run in bounded memory: neighboring values are averaged as it grows."""

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


def plan_lines(plan: RunPlan) -> list[tuple[str, str]]:
    """The plan as (name, text), without empty lines."""
    levels = bits_per_byte_levels(plan.baselines)
    baselines = ", ".join(f"{name} {value:.2f}" for name, value in levels.items())
    validation = f", {compact(plan.val_tokens)} for validation" if plan.val_tokens else ""
    lines = {
        "run": plan.run,
        "data": f"{plan.data}: {compact(plan.train_tokens)} tokens for training{validation}",
        "windows": _windows_line(plan),
        "model": f"{compact(plan.parameters)} parameters, {compact(plan.flops_per_token)} FLOPs per token",
        "machine": f"{plan.device}, {plan.precision}, {counted(plan.threads, 'thread')}",
        "plan": _schedule_line(plan),
        "needs": _needs_line(plan),
        "baselines": f"{baselines} bits/byte" if baselines else "",
    }
    return [(name, text) for name, text in lines.items() if text]


def _windows_line(plan: RunPlan) -> str:
    validation = f", {plan.validation_windows:,} for validation" if plan.validation_windows else ""
    return f"{plan.windows:,} for training, {plan.batch_size:,} per batch{validation}"


def _schedule_line(plan: RunPlan) -> str:
    parts = [f"{counted(plan.max_steps, 'step')} of {plan.tokens_per_step:,} tokens"]
    parts.append(f"{compact(plan.max_steps * plan.tokens_per_step / plan.train_tokens)} epochs")
    if plan.budget_seconds:
        parts.append(f"within {duration(plan.budget_seconds)}")
    if plan.first_step:
        parts.append(f"resumed after step {plan.first_step:,}")
    return ", ".join(parts)


def _needs_line(plan: RunPlan) -> str:
    """Estimated memory, and estimated time unless a budget determines it."""
    memory = f"about {byte_count(plan.memory_bytes)} of memory"
    return memory if plan.budget_seconds else f"{memory}, about {duration(plan.estimated_seconds)}"


def record_figures(record: MetricsRecord | None, *, train_loss: float | None = None) -> list[str]:
    """The metrics of a progress line, except throughput; `train_loss` overrides that of the record."""
    values = {
        metric: metric.value(record) for metric in METRICS.values() if metric.progress and metric is not THROUGHPUT
    }
    if train_loss is not None:
        values[METRICS["train_loss"]] = train_loss
    if record is not None and record.val_share == 1:
        values[METRICS["val_share"]] = None
    return [_figure(metric, value) for metric, value in values.items() if value is not None]


def _figure(metric: Metric, value: float) -> str:
    return metric.progress.format(value=value, compact=compact(value), percent=percent(value))


def _sample_block(prompt: str, completion: str, console: Console) -> Text:
    """The first lines of a sample next to a vertical bar, the prompt in bold."""
    from rich.text import Text

    sample = Text.assemble((prompt, "bold"), (completion, "dim"))
    sample.expand_tabs(4)
    lines = list(sample.wrap(console, max(8, min(console.width, 100) - 4)))
    first = lines[:SAMPLE_LINES] + ([Text("…", style="dim")] if len(lines) > SAMPLE_LINES else [])
    return Text("\n").join(Text.assemble(("  │ ", "cyan"), line) for line in first)
