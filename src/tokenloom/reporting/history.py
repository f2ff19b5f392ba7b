"""What a run folder tells about its run, finished or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenloom.errors import CheckpointError
from tokenloom.reporting.series import best, curve


@dataclass(frozen=True)
class RunHistory:
    """What a run folder tells; what it does not hold (yet) is empty."""

    run: Path
    config: dict[str, dict[str, Any]]
    records: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    baselines: dict[str, Any]
    summary: dict[str, Any]


def read_history(run: Path) -> RunHistory:
    """Read a run folder, finished or not; raises `CheckpointError` where there is none or a file is damaged."""
    if not run.is_dir():
        raise CheckpointError(f"run {run} is not a folder. Name the folder of a run.")
    from tokenloom.config_files import read_toml

    config = run / "config.toml"
    return RunHistory(
        run=run,
        config=read_toml(config) if config.exists() else {},
        records=_read_lines(run / "metrics.jsonl"),
        samples=_read_lines(run / "samples.jsonl"),
        baselines=_read_object(run / "baselines.json"),
        summary=_read_object(run / "summary.json"),
    )


def headline_figures(history: RunHistory) -> dict[str, Any]:
    """The headline figures: of the summary, or for an unfinished run as far as its records tell."""
    known: dict[str, Any] = {}
    names = {
        "step": "steps",
        "tokens": "tokens",
        "epoch": "epoch",
        "seconds": "seconds",
        "train/loss": "train_loss",
        "val/loss": "val_loss",
        "val/perplexity": "val_perplexity",
        "val/bits_per_byte": "val_bits_per_byte",
        "tokens_per_sec": "tokens_per_sec",
    }
    for record in history.records:
        known |= {ours: record[key] for key, ours in names.items() if record.get(key) is not None}
    lowest = best(curve(history.records, "val/loss"))
    if lowest:
        known |= {"best_step": lowest.step, "best_val_loss": lowest.value}
    return known | {key: value for key, value in history.summary.items() if value is not None}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line that a crash cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            objects.append(_object(line))
        except ValueError:
            if number == len(lines):
                break
            raise CheckpointError(f"{path}, line {number}, is not a JSON object. Remove that line.") from None
    return objects


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return _object(path.read_bytes())
    except ValueError:
        raise CheckpointError(f"{path} is not a JSON object. Remove the file.") from None


def _object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
