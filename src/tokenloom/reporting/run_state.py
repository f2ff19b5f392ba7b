"""The state of a run, from what is on disk: whether it trains, has finished, was stopped or diverged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from tokenloom.growing_file import last_lines
from tokenloom.metrics import METRICS
from tokenloom.run_folder import RunFolder
from tokenloom.strict_json import load_json

RunState = Literal["training", "stale", "finished", "diverged", "stopped"]

# A run that trains is stale if its next record is so late: in seconds, and in the time between its last two records.
STALE_SECONDS, STALE_RECORDS = 120.0, 10.0
# The lock of a process that is not seen on this machine, as in another container, counts after a change so recent.
RECENT_SECONDS = 60.0


@dataclass(frozen=True)
class RunStatus:
    """The state of a run, and when it last changed."""

    state: RunState
    """stale: it trains, but its next record is late. diverged: its loss or gradient was not finite."""
    changed: float | None
    """When the last record was written, or else when training began, in seconds since 1970."""
    process: int | None
    """The process that trains it, on this machine."""


def read_status(run: RunFolder, now: float) -> RunStatus:
    """The state of a run at the time `now`; the lock is looked at, not taken."""
    changed = _modified(run.metrics_file) or _modified(run.config_file)
    age = math.inf if changed is None else now - changed
    process, records = run.training_process(), _last_records(run)
    return RunStatus(_state(run, process, age, records), changed, process)


def _state(run: RunFolder, process: int | None, age: float, records: Sequence[Mapping[str, object]]) -> RunState:
    if process is not None or (run.lock_file.exists() and age < RECENT_SECONDS):
        return "stale" if age > max(STALE_SECONDS, STALE_RECORDS * _interval(records)) else "training"
    if run.is_finished():
        return "finished"
    return "diverged" if records and _has_diverged(records[-1]) else "stopped"


def _interval(records: Sequence[Mapping[str, object]]) -> float:
    """Seconds between the last two records."""
    seconds = [value for record in records if isinstance(value := record.get("seconds"), int | float)]
    return seconds[-1] - seconds[-2] if len(seconds) > 1 else 0.0


def _has_diverged(record: Mapping[str, object]) -> bool:
    """Whether a loss or the gradient in the record is not finite, which JSON writes as null."""
    names = ("train_loss", "val_loss", "grad_norm")
    values = [record[key] for name in names if (key := METRICS[name].key) in record]
    return any(value is None or (isinstance(value, float) and not math.isfinite(value)) for value in values)


def _last_records(run: RunFolder) -> list[Mapping[str, object]]:
    records: list[Mapping[str, object]] = []
    for line in last_lines(run.metrics_file, 2):
        try:
            value: object = load_json(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            records.append(cast("Mapping[str, object]", value))
    return records


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
