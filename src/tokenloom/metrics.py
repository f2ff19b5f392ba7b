"""The metrics of a run: one table of keys, labels, units and formats, and the record that carries them.

The metrics log, the console and the report all read this table. To add a metric: a field of `MetricsRecord`, a row of
`METRICS`, and the line in `training/loop.py` that computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Metric:
    """How one quantity is named and shown."""

    field: str
    """Attribute of `MetricsRecord`, and of `RunSummary` where that has it."""
    key: str
    """Key in metrics.jsonl and in TensorBoard."""
    label: str
    unit: str
    format: str
    """Format specification of a value."""

    def text(self, value: float) -> str:
        """A value as it is shown, without its unit."""
        return format(value, self.format)


# What is measured, in the order in which a record shows it.
METRICS: Mapping[str, Metric] = {
    metric.field: metric
    for metric in (
        Metric("step", "step", "step", "", ","),
        Metric("tokens", "tokens", "tokens seen", "tokens", ","),
        Metric("epoch", "epoch", "epochs", "passes over the training text", ".2f"),
        Metric("seconds", "seconds", "time", "seconds", ",.1f"),
        Metric("train_loss", "train/loss", "training loss", "nats per token", ".3f"),
        Metric("val_loss", "val/loss", "validation loss", "nats per token", ".3f"),
        Metric("val_perplexity", "val/perplexity", "validation perplexity", "tokens", ",.2f"),
        Metric("val_bits_per_byte", "val/bits_per_byte", "validation bits per byte", "bits per byte", ".4f"),
        Metric("lr", "lr", "learning rate", "", ".3g"),
        Metric("muon_lr", "muon_lr", "learning rate of Muon", "", ".3g"),
        Metric("grad_norm", "grad_norm", "gradient norm", "before clipping", ".3f"),
        Metric("tokens_per_sec", "tokens_per_sec", "throughput", "tokens per second", ",.0f"),
        Metric("mfu", "mfu", "model FLOPs utilization", "of the measured peak", ".1%"),
    )
}


@dataclass(frozen=True, kw_only=True)
class MetricsRecord:
    """One line of metrics.jsonl: where the run stood, and what was measured there; None where it was not."""

    step: int
    """Finished updates."""
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
    """Global norm of the last step's gradient, before clipping."""
    tokens_per_sec: float | None = None
    """Tokens over the time spent in training steps since the last record."""
    mfu: float | None = None
    """Model FLOPs utilization: the share of the measured peak FLOP/s."""
    val_loss: float | None = None
    val_perplexity: float | None = None
    val_bits_per_byte: float | None = None

    def to_json(self) -> dict[str, float]:
        """The record under the keys of metrics.jsonl, without what was not measured."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {METRICS[name].key: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """The record of one line; keys that this version does not know are ignored.

        Raises `ValueError` if the position (step, tokens, epoch, seconds) is missing or a value is not a number.
        """
        known: dict[str, float] = {}
        for metric in METRICS.values():
            value = values.get(metric.key)
            if value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"{metric.key} is {value!r}, not a number")
            known[metric.field] = value
        missing = [name for name in ("step", "tokens", "epoch", "seconds") if name not in known]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        return cls(**known)  # type: ignore[arg-type]
