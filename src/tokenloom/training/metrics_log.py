"""The records of a run: metrics.jsonl, samples.jsonl and, if wanted, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenloom.errors import MissingExtraError

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"


class MetricsLog:
    """Appends one JSON object a record, flushed at once, so that a reader can follow a run while it trains.

    A tracker that starts at a step later than 0 first cuts the files back to it: what a killed run wrote after its last
    checkpoint is about to be written again.
    """

    def __init__(self, run: Path, first_step: int = 0, *, tensorboard: bool = False) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._board = _open_tensorboard(run, first_step) if tensorboard else None  # first: it may be missing
        self._files = {}
        for name in (METRICS, SAMPLES):
            cut_back(run / name, first_step)
            self._files[name] = (run / name).open("a", encoding="utf-8")

    def record(self, record: Mapping[str, Any]) -> None:
        """Losses, rates and times at a step."""
        self._append(METRICS, record)
        if self._board is not None:
            for key, value in record.items():
                if isinstance(value, int | float) and key not in ("step", "tokens", "seconds"):
                    self._board.add_scalar(key, value, record["step"])

    def sample(self, sample: Mapping[str, Any]) -> None:
        """What the model wrote at a step."""
        self._append(SAMPLES, sample)
        if self._board is not None:
            self._board.add_text(f"prompt: {sample['prompt']}", sample["text"], sample["step"])

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()

    def _append(self, name: str, value: Mapping[str, Any]) -> None:
        self._files[name].write(json.dumps(value) + "\n")
        self._files[name].flush()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records in a file of JSON lines; a last line that a crash cut short is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def cut_back(path: Path, step: int) -> None:
    """Keep only the records up to `step`; a fresh run (step 0) starts with an empty file."""
    kept = [record for record in read_records(path) if step > 0 and record["step"] <= step]
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    unfinished.replace(path)


def _open_tensorboard(run: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "track", "--train.tensorboard") from None
    return SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
