"""The metrics of a run: one table of keys, labels, units and formats, and the record that holds their values.

The metrics log, the console and the report read this table. To add a metric, add a field to `MetricsRecord`, a row to
`METRICS`, and the code in `training/loop.py` that computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Metric:
    """How one quantity is named and formatted."""

    field: str
    """Attribute of `MetricsRecord`, and of `RunSummary` if it has one of that name."""
    key: str
    """Key in metrics.jsonl and in TensorBoard."""
    label: str
    unit: str
    format: str
    """Format specification of a value."""
    progress: str = ""
    """Template of a value in a progress line, with `{value}`, `{compact}` (at most four digits) or `{percent}`; empty:
    not shown."""
    chart: bool = False
    """Whether the report draws this quantity in a chart of its own."""

    def value(self, source: object) -> float | None:
        """This quantity in a `MetricsRecord` or `RunSummary`; None if it was not measured."""
        return getattr(source, self.field, None)

    def text(self, value: float) -> str:
        """A formatted value, without its unit."""
        return format(value, self.format)


# In the order in which a record lists them.
METRICS: Mapping[str, Metric] = {
    metric.field: metric
    for metric in (
        Metric("step", "step", "step", "", ","),
        Metric("tokens", "tokens", "tokens seen", "tokens", ","),
        Metric("epoch", "epoch", "epochs", "passes over the training text", ".2f"),
        Metric("seconds", "seconds", "time", "seconds", ",.1f"),
        Metric("train_loss", "train/loss", "training loss", "nats per token", ".3f", progress="train {value:.3f}"),
        Metric("val_loss", "val/loss", "validation loss", "nats per token", ".3f", progress="val {value:.3f}"),
        Metric("val_perplexity", "val/perplexity", "validation perplexity", "", ",.2f"),
        Metric(
            "val_bits_per_byte",
            "val/bits_per_byte",
            "validation bits per byte",
            "bits per byte",
            ".4f",
            progress="{value:.2f} bits/byte",
        ),
        Metric(
            "val_share",
            "val/share",
            "share of the validation text",
            "measured in an evaluation during training",
            ".3g",
            progress="on {percent} of text",
        ),
        Metric("lr", "lr", "learning rate", "", ".3g", chart=True),
        Metric("muon_lr", "muon_lr", "learning rate of Muon", "", ".3g", chart=True),
        Metric("grad_norm", "grad_norm", "gradient norm", "before clipping", ".3f", chart=True),
        Metric(
            "tokens_per_sec",
            "tokens_per_sec",
            "throughput",
            "tokens per second",
            ",.0f",
            progress="{compact} tok/s",
            chart=True,
        ),
        Metric("mfu", "mfu", "model FLOPs utilization", "of peak FLOP/s", ".1%"),
    )
}


@dataclass(frozen=True, kw_only=True)
class MetricsRecord:
    """One line of metrics.jsonl: the position of the run and what was measured there; None for what was not."""

    step: int
    """Finished steps."""
    tokens: int
    """Training tokens seen."""
    epoch: float
    seconds: float
    """Wall-clock time of the run, earlier sessions included."""
    train_loss: float | None = None
    """Mean over the steps since the last record, in nats per token."""
    lr: float | None = None
    """Learning rate of AdamW in the last step."""
    muon_lr: float | None = None
    """Learning rate of Muon in the last step; None without Muon."""
    grad_norm: float | None = None
    """Global gradient norm of the last step, before clipping."""
    tokens_per_sec: float | None = None
    """Tokens over the time spent in training steps since the last record."""
    mfu: float | None = None
    """Model FLOPs utilization: achieved over peak FLOP/s."""
    val_loss: float | None = None
    """Mean over the validation text, or over the part of it that train.eval_batches selects, in nats per token."""
    val_perplexity: float | None = None
    val_bits_per_byte: float | None = None
    val_share: float | None = None
    """The share of the validation text that the validation figures of this record are taken on, 1 for all of it."""

    def updated(self, newer: Self) -> Self:
        """The latest value of each metric: those of `newer`, and of this record where `newer` has none."""
        return replace(newer, **{name: getattr(self, name) for name in METRICS if getattr(newer, name) is None})

    def to_json(self) -> dict[str, float]:
        """The measured values under the keys of metrics.jsonl."""
        values = {metric.key: metric.value(self) for metric in METRICS.values()}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """The record in one line of metrics.jsonl; keys of other versions are ignored.

        Raises `ValueError` if the position (step, tokens, epoch, seconds) is missing or a value is not a number.
        """
        numbers: dict[str, float] = {}
        for metric in METRICS.values():
            value = values.get(metric.key)
            if value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"{metric.key} is {value!r}, not a number")
            numbers[metric.field] = value
        missing = [name for name in ("step", "tokens", "epoch", "seconds") if name not in numbers]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return cls(step=int(numbers.pop("step")), tokens=int(numbers.pop("tokens")), **numbers)
