"""The metrics of a run as columns of numbers, which grow as records are appended; long ones are drawn in buckets."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from tokenloom.growing_file import Cursor, read_appended
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.reporting.series import Point
from tokenloom.serving.metric_lines import AXES, MetricTable, parse_table

MAX_POINTS = 20_000
"""Points of a series that are sent as they are; more are put into buckets."""
_FIELDS = {metric.key: name for name, metric in METRICS.items()}


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
        """The series without its axes, which several series may share."""
        return {
            "count": self.count,
            "bucketed": self.low is not None,
            "value": self.values,
            "low": self.low,
            "high": self.high,
            "non_finite": [{"step": step, "value": value} for step, value in self.non_finite],
            "non_finite_count": self.non_finite_count,
        }


class MetricColumns:
    """The metrics in a file of records, read once. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cursor = Cursor()
        """After the last record that was read."""
        self._clear()

    def __len__(self) -> int:
        """Number of records."""
        return len(self._axes["step"].values)

    def update(self) -> None:
        """Read what was appended, or everything if the file was replaced."""
        more = True
        while more:
            appended = read_appended(self._path, self.cursor)
            if appended.reset:
                self._clear()
            if appended.lines:
                self._append(parse_table(appended.lines))
            self.cursor, more = appended.cursor, appended.more

    def keys(self) -> list[str]:
        """The metrics that have values, in the order of `METRICS`."""
        return [key for key in _FIELDS if key in self._columns]

    def latest(self) -> MetricsRecord | None:
        """The latest value of each metric; None without records."""
        if not len(self):
            return None
        values = {_FIELDS[key]: float(column.values.values[-1]) for key, column in self._columns.items()}
        axes = {name: float(self._axes[name].values[-1]) for name in AXES}
        return MetricsRecord(
            step=int(axes["step"]), tokens=int(axes["tokens"]), epoch=axes["epoch"], seconds=axes["seconds"], **values
        )

    def lowest(self, key: str) -> Point | None:
        """The lowest finite value of a metric, the earliest of several."""
        if key not in self._columns:
            return None
        rows, values = self._columns[key].rows.values, self._columns[key].values.values
        rows, values = rows[np.isfinite(values)], values[np.isfinite(values)]
        if not len(values):
            return None
        row = int(rows[values.argmin()])
        step, tokens, epoch = (float(self._axes[name].values[row]) for name in ("step", "tokens", "epoch"))
        return Point(int(step), epoch, int(tokens), float(values.min()))

    def at_steps(self, key: str, steps: Collection[int]) -> dict[int, float]:
        """The value of a metric at those of some steps that have one, the last of several."""
        column = self._columns.get(key, _Column())
        recorded = self._axes["step"].values[column.rows.values]
        wanted = np.isin(recorded, list(steps))
        pairs = zip(recorded[wanted], column.values.values[wanted].tolist(), strict=True)
        return {int(step): value for step, value in pairs}

    def series(
        self, keys: Iterable[str], start: float = 0, stop: float = math.inf, buckets: int = 2000
    ) -> dict[str, Series]:
        """Metrics from step `start` to `stop`: every point if there are at most `MAX_POINTS`, else so many buckets.

        Metrics that the same records have share their axes.
        """
        known: list[_Axes] = []
        return {key: self._series(self._columns.get(key, _Column()), start, stop, buckets, known) for key in keys}

    def _series(self, column: _Column, start: float, stop: float, buckets: int, known: list[_Axes]) -> Series:
        rows, values = column.rows.values, column.values.values
        steps = self._axes["step"].values[rows]
        in_range = (steps >= start) & (steps <= stop)
        finite = in_range & np.isfinite(values)
        other = in_range & ~np.isfinite(values)
        order = np.argsort(steps[finite], kind="stable")
        rows, points = rows[finite][order], values[finite][order]
        axes = next((one for one in known if np.array_equal(one.rows, rows)), None)
        if axes is None:
            axes = self._axes_of(rows, buckets)
            known.append(axes)
        low = high = None
        if axes.edges is not None:
            low = np.minimum.reduceat(points, axes.edges).tolist()
            high = np.maximum.reduceat(points, axes.edges).tolist()
            points = _bucket_means(points, axes.edges)
        return Series(
            count=int(finite.sum()),
            axes=axes.values,
            values=points.tolist(),
            low=low,
            high=high,
            non_finite=[
                (int(step), number_text(value))
                for step, value in zip(steps[other][:MAX_POINTS], values[other][:MAX_POINTS].tolist(), strict=True)
            ],
            non_finite_count=int(other.sum()),
        )

    def _axes_of(self, rows: np.ndarray, buckets: int) -> _Axes:
        """The axes of the records with these numbers, in buckets if there are many."""
        axes = {name: axis.values[rows] for name, axis in self._axes.items()}
        edges = np.arange(buckets) * len(rows) // buckets if len(rows) > MAX_POINTS else None
        if edges is not None:
            axes = {name: _bucket_means(axis, edges) for name, axis in axes.items()}
        return _Axes(rows, edges, {name: axis.tolist() for name, axis in axes.items()})

    def _append(self, table: MetricTable) -> None:
        first = len(self)
        for name, positions in table.axes.items():
            self._axes[name].extend(positions)
        for key, (rows, values) in table.metrics.items():
            column = self._columns.setdefault(key, _Column())
            column.rows.extend(rows + first)
            column.values.extend(values)

    def _clear(self) -> None:
        self._axes = {name: _Numbers(np.float64) for name in AXES}
        self._columns: dict[str, _Column] = {}


class _Numbers:
    """An array that grows at its end."""

    def __init__(self, kind: type[np.generic]) -> None:
        self._room = np.empty(64, kind)
        self._count = 0

    @property
    def values(self) -> np.ndarray:
        return self._room[: self._count]

    def extend(self, values: np.ndarray) -> None:
        count = self._count + len(values)
        if count > len(self._room):
            room = np.empty(2 * count, self._room.dtype)
            room[: self._count] = self.values
            self._room = room
        self._room[self._count : count] = values
        self._count = count


@dataclass
class _Column:
    """The values of a metric, and the numbers of the records that have them."""

    rows: _Numbers = field(default_factory=lambda: _Numbers(np.int64))
    values: _Numbers = field(default_factory=lambda: _Numbers(np.float64))


@dataclass(frozen=True)
class _Axes:
    """The positions of some records, or the means of their buckets, which begin at `edges`."""

    rows: np.ndarray
    edges: np.ndarray | None
    values: Mapping[str, Sequence[float]]


def _bucket_means(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, edges) / np.diff(np.append(edges, len(values)))


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
