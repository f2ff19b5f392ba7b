"""Lines of a run's metrics as records, and as a table of numbers, which is read many times faster."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import cast

import numpy as np

from tokenloom.metrics import METRICS
from tokenloom.strict_json import load_json

AXES = ("step", "tokens", "epoch", "seconds")
KEYS = frozenset(metric.key for metric in METRICS.values())
_LOSS, _PERPLEXITY = METRICS["val_loss"].key, METRICS["val_perplexity"].key


@dataclass(frozen=True)
class MetricTable:
    """Records as arrays of fp64 numbers."""

    axes: Mapping[str, np.ndarray]
    """The position of every record on each axis."""
    metrics: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """For each metric the numbers of the records that have it, ascending, and its values."""


def parse_records(lines: Sequence[bytes]) -> list[dict[str, float]]:
    """The numbers in lines of metrics.jsonl; lines that are no record are left out, and null is NaN or an infinity.

    A perplexity that is null with a finite loss exceeded every float.
    """
    records = ({key: _number(value) for key, value in record.items()} for record in _objects(lines))
    found = [{key: number for key, number in record.items() if number is not None} for record in records]
    for record in found:
        if math.isnan(record.get(_PERPLEXITY, 0.0)) and math.isfinite(record.get(_LOSS, math.nan)):
            record[_PERPLEXITY] = math.inf
    return [record for record in found if all(math.isfinite(record.get(name, math.nan)) for name in AXES)]


def parse_table(lines: Sequence[bytes]) -> MetricTable:
    """The records of `parse_records` as a table. Records with the same keys are converted together."""
    records = _objects(lines)
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault(tuple(record), []).append(number)
    axes = {name: np.full(len(records), math.nan) for name in AXES}
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for keys, numbers in groups.items():
        rows, columns = np.array(numbers), zip(*(records[number].values() for number in numbers), strict=True)
        known = {key: _numbers(column) for key, column in zip(keys, columns, strict=True) if key in KEYS}
        if _PERPLEXITY in known and _LOSS in known:
            perplexity, loss = known[_PERPLEXITY][0], known[_LOSS][0]
            perplexity[np.isnan(perplexity) & np.isfinite(loss)] = math.inf
        for key, (values, are_numbers) in known.items():
            if key in axes:
                axes[key][rows] = values
            else:
                parts.setdefault(key, []).append((rows[are_numbers], values[are_numbers]))
    is_record = np.all([np.isfinite(axis) for axis in axes.values()], axis=0)
    return MetricTable(
        {name: axis[is_record] for name, axis in axes.items()},
        {key: column for key, mine in parts.items() if len((column := _joined(mine, is_record))[0])},
    )


def _joined(parts: Sequence[tuple[np.ndarray, np.ndarray]], is_record: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The column of a metric, from those of several groups of records; what is no record is not counted."""
    rows, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(rows)
    order = order[is_record[rows[order]]]
    return (np.cumsum(is_record) - 1)[rows[order]], values[order]


def _objects(lines: Sequence[bytes]) -> list[dict[str, object]]:
    """The objects among lines of JSON."""
    try:
        values: list[object] = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        values = [_value(line) for line in lines]
    return [cast("dict[str, object]", value) for value in values if isinstance(value, dict)]


def _value(line: bytes) -> object:
    try:
        return load_json(line)
    except ValueError:
        return None


def _numbers(column: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    """The values of a column, and which of them are numbers."""
    if {*map(type, column)} <= {float, int, NoneType}:
        with suppress(OverflowError):  # an integer may exceed every float
            return np.array(column, np.float64), np.ones(len(column), np.bool_)
    numbers = [_number(value) for value in column]
    values = [math.nan if number is None else number for number in numbers]
    return np.array(values), np.array([number is not None for number in numbers])


def _number(value: object) -> float | None:
    """A value as a number: null is NaN, what is no number None."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
