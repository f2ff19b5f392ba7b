"""Recorded metrics as series of points, for charts: sorted, finite, and downsampled.

Training is blue and solid, validation orange and dash-dotted, a baseline gray and dotted: the colors differ for
color-blind readers and in print, and the line styles differ without color.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from tokenloom.metrics import Metric, MetricsRecord
from tokenloom.reporting.formatting import percent

TRAIN, VALIDATION, BASELINE = "#1f5aa6", "#e07b1a", "#6f6f6f"


class Point(NamedTuple):
    """One value of a metric and the position at which it was measured."""

    step: int
    epoch: float
    tokens: int
    value: float


class Bucket(NamedTuple):
    """Neighboring points drawn as one: their mean position and value, and the range of their values."""

    step: float
    epoch: float
    value: float
    low: float
    high: float


def read_series(records: Iterable[MetricsRecord], metric: Metric) -> list[Point]:
    """The finite values of a metric, in order of their steps."""
    points = [
        Point(record.step, record.epoch, record.tokens, value)
        for record in records
        if (value := metric.value(record)) is not None and math.isfinite(value)
    ]
    return sorted(points, key=lambda point: point.step)


def part_note(records: Iterable[MetricsRecord]) -> str:
    """ " on 12%" if the latest validation figures are not taken on the whole validation text."""
    shares = [record.val_share for record in records if record.val_share is not None]
    return f" on {percent(shares[-1])}" if shares and shares[-1] < 1 else ""


def lowest(points: Iterable[Point]) -> Point | None:
    """The point with the lowest value, the earliest of several."""
    return min(points, key=lambda point: point.value, default=None)


def downsample(points: Sequence[Point], limit: int) -> list[Bucket]:
    """At most `limit` buckets of neighboring points; their ranges preserve every spike."""
    count = min(len(points), limit)
    edges = [index * len(points) // count for index in range(count + 1)] if count else []
    return [_bucket(points[start:end]) for start, end in pairwise(edges)]


def tokens_per_epoch(points: Iterable[Point]) -> float | None:
    """Tokens in an epoch, from the latest point; None before the first step."""
    latest = max(points, key=lambda point: point.epoch, default=None)
    return latest.tokens / latest.epoch if latest and latest.epoch > 0 and latest.tokens > 0 else None


def _bucket(points: Sequence[Point]) -> Bucket:
    values = [point.value for point in points]
    count = len(points)
    return Bucket(
        step=sum(point.step for point in points) / count,
        epoch=sum(point.epoch for point in points) / count,
        value=math.fsum(values) / count,
        low=min(values),
        high=max(values),
    )
