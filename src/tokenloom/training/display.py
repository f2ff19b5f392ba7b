"""What training reports while it runs; the displays themselves are in `tokenloom.reporting`."""

from __future__ import annotations

from typing import Protocol, Self

from tokenloom.metrics import MetricsRecord
from tokenloom.run_records import RunPlan, RunSummary, SampleRecord


class Display(Protocol):
    """Receives the events of a training run, in the order in which they happen."""

    def started(self, plan: RunPlan) -> None:
        """Training is about to start."""
        ...

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        """A step has finished; `loss` is in nats per token."""
        ...

    def recorded(self, record: MetricsRecord) -> None:
        """A record was written to the metrics log."""
        ...

    def sampled(self, sample: SampleRecord) -> None:
        """A sample was written to the samples log."""
        ...

    def notice(self, text: str) -> None:
        """A message for the user, in one line."""
        ...

    def replanned(self, max_steps: int) -> None:
        """The number of steps has changed."""
        ...

    def evaluated(self, done: int, total: int) -> None:
        """So many windows of the final evaluation are finished, of so many."""
        ...

    def finished(self, summary: RunSummary) -> None:
        """Training has finished."""
        ...


class QuietDisplay:
    """A display that shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def started(self, plan: RunPlan) -> None:
        return

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        return

    def recorded(self, record: MetricsRecord) -> None:
        return

    def sampled(self, sample: SampleRecord) -> None:
        return

    def notice(self, text: str) -> None:
        return

    def replanned(self, max_steps: int) -> None:
        return

    def evaluated(self, done: int, total: int) -> None:
        return

    def finished(self, summary: RunSummary) -> None:
        return
