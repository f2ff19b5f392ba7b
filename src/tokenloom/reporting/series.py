"""What a run measured, as curves: the points of one quantity, thinned for drawing, and the levels to compare with.

Training is blue and solid, validation orange and dash-dotted, a baseline grey and dotted: three shades that differ for
the colour-blind and in print, and three strokes that differ without any colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Record = Mapping[str, Any]

TRAIN, VALIDATION, BASELINE = "#1f5aa6", "#e07b1a", "#6f6f6f"


class Point(NamedTuple):
    """One value of a run, and when it was measured."""

    step: int
    epoch: float
    tokens: int
    value: float


class Bucket(NamedTuple):
    """Neighbouring points drawn as one: where they lie on average, and the least and greatest value among them."""

    step: float
    epoch: float
    value: float
    low: float
    high: float


def curve(records: Iterable[Record], key: str) -> list[Point]:
    """The finite values of `key`, in order of their steps."""
    points = [
        Point(int(record["step"]), float(record["epoch"]), int(record["tokens"]), float(record[key]))
        for record in records
        if all(_is_finite(record.get(name)) for name in ("step", "epoch", "tokens", key))
    ]
    return sorted(points, key=lambda point: point.step)


def best(points: Iterable[Point]) -> Point | None:
    """The point with the least value, the earliest if several share it."""
    return min(points, key=lambda point: point.value, default=None)


def thin(points: Sequence[Point], limit: int) -> list[Bucket]:
    """At most `limit` buckets of neighbours, whose ranges keep every spike in sight."""
    count = min(len(points), limit)
    edges = [index * len(points) // count for index in range(count + 1)] if count else []
    return [_bucket(points[start:end]) for start, end in pairwise(edges)]


def known_levels(values: Mapping[str, float | None] | None, names: Mapping[str, str]) -> dict[str, float]:
    """The baselines that are known, by the name that readers know them by."""
    found = {name: (values or {}).get(key) for key, name in names.items()}
    return {name: float(value) for name, value in found.items() if value is not None and _is_finite(value)}


def tokens_per_epoch(points: Iterable[Point]) -> float | None:
    """How many tokens an epoch has, by the latest point; None before the first step."""
    latest = max(points, key=lambda point: point.epoch, default=None)
    return latest.tokens / latest.epoch if latest and latest.epoch > 0 and latest.tokens > 0 else None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
