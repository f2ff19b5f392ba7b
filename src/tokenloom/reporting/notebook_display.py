"""Training in a notebook: the plan, a progress bar, the plot of the losses and the newest sample, renewed in place."""

# IPython is only imported where a kernel runs, and its display functions are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from html import escape
from typing import Any, Self

from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.console import FINAL_EVALUATION, plan_lines, record_figures
from tokenloom.reporting.formatting import clock_time, compact, visible
from tokenloom.reporting.messages import summary_lines
from tokenloom.reporting.series import TRAIN
from tokenloom.reporting.svg_charts import losses_svg
from tokenloom.run_records import RunPlan, RunSummary, SampleRecord

LAST_MESSAGES = 5
INTERVAL = 0.5  # seconds between two updates: each sends the whole output to the browser

_STYLE = (
    f".tokenloom-run{{font:14px/1.5 system-ui,sans-serif;max-width:940px;--train:{TRAIN};--ink:currentColor;"
    "--soft:#7f868f;--line:#7f868f55}"
    ".tokenloom-run pre{margin:4px 0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}"
    ".tokenloom-run .track{height:10px;border-radius:5px;background:#7f868f33;overflow:hidden}"
    f".tokenloom-run .track div{{height:100%;background:{TRAIN}}}"
)


class NotebookDisplay:
    """One output that is renewed while training proceeds, and keeps its final state in the saved notebook.

    `show` displays HTML and returns a function that replaces it; the default is IPython's display. `stepped` may be
    called at every step: the output is renewed at most every `INTERVAL` seconds.
    """

    def __init__(
        self,
        show: Callable[[str], Callable[[str], None]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show or _show_in_kernel
        self._clock = clock
        self._replace: Callable[[str], None] | None = None
        self._renewed = -INTERVAL
        self._plan: RunPlan | None = None
        self._step = 0
        self._rate: float | None = None
        self._first_step: tuple[float, int] | None = None
        """When the first step of this session finished, and its number."""
        self._records: list[MetricsRecord] = []
        self._sample: SampleRecord | None = None
        self._notices: list[str] = []
        """Notices before the start, which explain the plan."""
        self._messages: deque[str] = deque(maxlen=LAST_MESSAGES)
        """The newest notices since then."""
        self._evaluation = ""
        """The progress of the final evaluation."""
        self._summary: RunSummary | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._replace is not None:
            self._renew()

    def started(self, plan: RunPlan) -> None:
        self._plan, self._step = plan, plan.first_step
        self._renew()

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        self._step, self._rate = step, tokens_per_sec
        self._first_step = self._first_step or (self._clock(), step)
        self._renew_in_time()

    def recorded(self, record: MetricsRecord) -> None:
        self._records.append(record)
        self._renew_in_time()

    def sampled(self, sample: SampleRecord) -> None:
        self._sample = sample
        self._renew_in_time()

    def notice(self, text: str) -> None:
        (self._notices if self._plan is None else self._messages).append(text)
        self._renew()

    def replanned(self, max_steps: int) -> None:
        if self._plan is not None:
            self._plan = replace(self._plan, max_steps=max_steps)

    def evaluated(self, done: int, total: int) -> None:
        self._evaluation = f"{FINAL_EVALUATION}: {done:,} of {total:,} windows"
        self._renew_in_time()

    def finished(self, summary: RunSummary) -> None:
        self._summary = summary
        self._renew()

    def _renew_in_time(self) -> None:
        if self._clock() - self._renewed >= INTERVAL:
            self._renew()

    def _renew(self) -> None:
        self._renewed = self._clock()
        if self._replace is None:
            self._replace = self._show(self._html())
        else:
            self._replace(self._html())

    def _html(self) -> str:
        parts = [f"<style>{_STYLE}</style>", _lines(self._notices)]
        if self._plan is not None:
            parts += [_lines(f"{name:<9} {text}" for name, text in plan_lines(self._plan)), self._progress(self._plan)]
        if self._records:
            parts.append(losses_svg(self._records, baselines=self._plan.baselines if self._plan else None))
        if self._sample is not None:
            sample = self._sample
            parts.append(f"<pre><b>{_shown(sample.prompt)}</b>{_shown(sample.text)}</pre>")
        parts.append(_lines(self._messages))
        if self._summary is None:
            parts.append(_lines(filter(None, [self._evaluation])))
        else:
            parts.append(_lines(summary_lines(self._summary, self._plan.baselines if self._plan else None)))
        return f'<div class="tokenloom-run">{"".join(parts)}</div>'

    def _progress(self, plan: RunPlan) -> str:
        percent = 100 * min(1.0, self._step / max(1, plan.max_steps))
        figures = [f"step {self._step:,}/{plan.max_steps:,}", *record_figures(self._latest())]
        if self._rate:
            figures.append(f"{compact(self._rate)} tokens/s")
        figures += self._time_left(plan)
        bar = f'<div class="track" role="progressbar" aria-valuenow="{percent:.0f}" aria-label="training">'
        return f'{bar}<div style="width:{percent:.1f}%"></div></div>' + _lines(["  ".join(figures)])

    def _latest(self) -> MetricsRecord | None:
        """The newest value of each metric."""
        latest: MetricsRecord | None = None
        for record in self._records[-50:]:
            latest = latest.updated(record) if latest else record
        return latest

    def _time_left(self, plan: RunPlan) -> list[str]:
        if self._first_step is None or not self._first_step[1] < self._step < plan.max_steps:
            return []
        start, step = self._first_step
        seconds = (self._clock() - start) / (self._step - step) * (plan.max_steps - self._step)
        return [f"{clock_time(seconds)} left"]


def _lines(lines: Iterable[str]) -> str:
    text = "\n".join(_shown(line) for line in lines)
    return f"<pre>{text}</pre>" if text else ""


def _shown(text: str) -> str:
    return escape(visible(text))


def _show_in_kernel(html: str) -> Callable[[str], None]:
    from IPython.display import HTML, display

    handle: Any = display(HTML(html), display_id=True)
    return lambda renewed: handle.update(HTML(renewed))
