"""The history of a run: everything recorded in its folder, finished or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path

from tokenloom.config import Config
from tokenloom.errors import CheckpointError
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.reporting.series import Point, lowest, read_series
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import Baselines, RunSummary, SampleRecord


@dataclass(frozen=True)
class RunHistory:
    """The records of a run; None or empty for what it does not have (yet)."""

    run: RunFolder
    config: Config | None
    metrics: list[MetricsRecord]
    samples: list[SampleRecord]
    baselines: Baselines | None
    summary: RunSummary | None
    """None for an unfinished run."""

    @property
    def latest(self) -> MetricsRecord | None:
        """The latest value of each metric."""
        return reduce(MetricsRecord.updated, self.metrics) if self.metrics else None


def read_history(path: Path) -> RunHistory:
    """Read a run folder; raises `CheckpointError` if it does not exist or a file in it is corrupt."""
    if not path.is_dir():
        raise CheckpointError(f"run {path} is not a folder. Pass the folder of a run.")
    run = RunFolder(path)
    return RunHistory(
        run=run,
        config=run.config() if run.config_file.exists() else None,
        metrics=run.metrics(),
        samples=run.samples(),
        baselines=run.baselines(),
        summary=run.summary(),
    )


def headline_figures(history: RunHistory) -> RunSummary:
    """The summary of a finished run; for an unfinished one, the same figures as far as they are recorded."""
    best = lowest(read_series(history.metrics, METRICS["val_loss"]))
    return figures_of(history.run, history.latest, best, history.summary)


def figures_of(
    run: RunFolder, latest: MetricsRecord | None, best: Point | None, summary: RunSummary | None
) -> RunSummary:
    """The headline figures, from the latest value of each metric and the lowest validation loss so far."""
    figures = RunSummary(run=str(run.path))
    if latest is not None:
        figures = replace(
            figures,
            steps=latest.step,
            tokens=latest.tokens,
            epoch=latest.epoch,
            seconds=latest.seconds,
            train_loss=latest.train_loss,
            val_loss=latest.val_loss,
            val_perplexity=latest.val_perplexity,
            val_bits_per_byte=latest.val_bits_per_byte,
            tokens_per_sec=latest.tokens_per_sec,
            last_val_loss=latest.val_loss,
            val_share=latest.val_share,
        )
    if best is not None:
        figures = replace(figures, best_step=best.step, best_val_loss=best.value)
    if summary is None:
        return figures
    return replace(figures, **{name: value for name, value in asdict(summary).items() if value is not None})
