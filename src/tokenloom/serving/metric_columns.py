"""The metrics of a run as columns of numbers, which grow as records are appended; long ones are drawn in buckets."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from tokenloom.growing_file import Cursor, read_appended
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.reporting.series import Point
from tokenloom.strict_json import load_json

AXES = ("step", "tokens", "epoch", "seconds")
MAX_POINTS = 20_000
"""Points of a series that are sent as they are; more are put into buckets."""
_FIELDS = {metric.key: name for name, metric in METRICS.items()}
_LOSS, _PERPLEXITY = METRICS["val_loss"].key, METRICS["val_perplexity"].key


@dataclass(frozen=True)
class Series:
    """One metric in a range of steps: every point, or buckets of neighboring points with their mean and their range."""

    count: int
    """Finite values in the range."""
    axes: Mapping[str, Sequence[float]]
    """step, tokens, epoch and seconds of every point, or their means in every bucket."""
    values: Sequence[float]
    """The value of every point, or the mean of every bucket."""
    low: Sequence[float] | None
    """The lowest value of every bucket; None for points."""
    high: Sequence[float] | None
    non_finite: Sequence[tuple[int, str]]
    """Steps at which the value was not finite, and what it was, at most `MAX_POINTS`."""
    non_finite_count: int

    def to_json(self) -> dict[str, object]:
        return {
            "count": self.count,
            "bucketed": self.low is not None,
            **self.axes,
            "value": self.values,
            "low": self.low,
            "high": self.high,
            "non_finite": [{"step": step, "value": value} for step, value in self.non_finite],
            "non_finite_count": self.non_finite_count,
        }


@dataclass
class _Column:
    """The values of a metric, and the numbers of the records that have them."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class MetricColumns:
    """The metrics in a file of records, read once. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cursor = Cursor()
        """After the last record that was read."""
        self._clear()

    def __len__(self) -> int:
        """Number of records."""
        return len(self._axes["step"])

    def update(self) -> None:
        """Read what was appended, or everything if the file was replaced."""
        more = True
        while more:
            appended = read_appended(self._path, self.cursor)
            if appended.reset:
                self._clear()
            for record in parse_records(appended.lines):
                self._append(record)
            self.cursor, more = appended.cursor, appended.more

    def keys(self) -> list[str]:
        """The metrics that have values, in the order of `METRICS`."""
        return [key for key in _FIELDS if key in self._columns]

    def latest(self) -> MetricsRecord | None:
        """The latest value of each metric; None without records."""
        if not len(self):
            return None
        values = {_FIELDS[key]: column.values[-1] for key, column in self._columns.items()}
        axes = {name: self._axes[name][-1] for name in AXES}
        return MetricsRecord(
            step=int(axes["step"]), tokens=int(axes["tokens"]), epoch=axes["epoch"], seconds=axes["seconds"], **values
        )

    def lowest(self, key: str) -> Point | None:
        """The lowest finite value of a metric, the earliest of several."""
        if key not in self._columns:
            return None
        rows, values = self._arrays(key)
        rows, values = rows[np.isfinite(values)], values[np.isfinite(values)]
        if not len(values):
            return None
        row = int(rows[values.argmin()])
        step, tokens, epoch = (self._axes[name][row] for name in ("step", "tokens", "epoch"))
        return Point(int(step), epoch, int(tokens), float(values.min()))

    def series(self, key: str, start: float = 0, stop: float = math.inf, buckets: int = 2000) -> Series:
        """A metric from step `start` to `stop`: every point if there are at most `MAX_POINTS`, else so many buckets."""
        rows, values = self._arrays(key) if key in self._columns else (np.empty(0, np.int64), np.empty(0))
        steps = np.array(self._axes["step"])[rows]
        in_range = (steps >= start) & (steps <= stop)
        finite = in_range & np.isfinite(values)
        other = in_range & ~np.isfinite(values)
        order = np.argsort(steps[finite], kind="stable")
        rows, points = rows[finite][order], values[finite][order]
        axes = {name: np.array(self._axes[name])[rows] for name in AXES}
        low = high = None
        if len(points) > MAX_POINTS:
            edges = np.arange(buckets) * len(points) // buckets
            sizes = np.diff(np.append(edges, len(points)))
            axes = {name: np.add.reduceat(axis, edges) / sizes for name, axis in axes.items()}
            low, high = np.minimum.reduceat(points, edges).tolist(), np.maximum.reduceat(points, edges).tolist()
            points = np.add.reduceat(points, edges) / sizes
        return Series(
            count=int(finite.sum()),
            axes={name: axis.tolist() for name, axis in axes.items()},
            values=points.tolist(),
            low=low,
            high=high,
            non_finite=[
                (int(step), number_text(value))
                for step, value in zip(steps[other][:MAX_POINTS], values[other][:MAX_POINTS].tolist(), strict=True)
            ],
            non_finite_count=int(other.sum()),
        )

    def _arrays(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        column = self._columns[key]
        return np.array(column.rows), np.array(column.values)

    def _append(self, record: Mapping[str, float]) -> None:
        row = len(self)
        for name in AXES:
            self._axes[name].append(record[name])
        for key, value in record.items():
            if key in _FIELDS and key not in AXES:
                column = self._columns.setdefault(key, _Column())
                column.rows.append(row)
                column.values.append(value)

    def _clear(self) -> None:
        self._axes: dict[str, array[float]] = {name: array("d") for name in AXES}
        self._columns: dict[str, _Column] = {}


def parse_records(lines: Sequence[bytes]) -> list[dict[str, float]]:
    """The numbers in lines of metrics.jsonl; lines that are no record are left out, and null is NaN or an infinity.

    A perplexity that is null with a finite loss exceeded every float.
    """
    try:
        values: list[object] = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        values = [_value(line) for line in lines]
    records = (_numbers(cast("Mapping[str, object]", value)) for value in values if isinstance(value, dict))
    return [record for record in records if all(math.isfinite(record.get(name, math.nan)) for name in AXES)]


def with_number_texts(value: object) -> object:
    """The same value with "NaN", "Infinity" and "-Infinity" for the numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else number_text(value)
    if isinstance(value, Mapping):
        return {key: with_number_texts(item) for key, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [with_number_texts(item) for item in cast("Sequence[object]", value)]
    return value


def number_text(value: float) -> str:
    """The name of a number that is not finite, as JavaScript writes it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _value(line: bytes) -> object:
    try:
        return load_json(line)
    except ValueError:
        return None


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, float):
            numbers[key] = value
        elif isinstance(value, int) and not isinstance(value, bool):
            numbers[key] = float(value) if abs(value) < 1 << 1000 else math.inf
        elif value is None:
            numbers[key] = math.nan
    if math.isnan(numbers.get(_PERPLEXITY, 0.0)) and math.isfinite(numbers.get(_LOSS, math.nan)):
        numbers[_PERPLEXITY] = math.inf
    return numbers
