"""The logs of a run: metrics.jsonl, samples.jsonl and, if configured, TensorBoard events."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from tokenloom.errors import MissingExtraError, TrainingError
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.run_folder import JsonlWriter, RunFolder, truncate_jsonl
from tokenloom.run_records import SampleRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# A scalar is plotted over the step; these are other ways to say where the run is.
_NOT_PLOTTED = {METRICS[field].key for field in ("step", "tokens", "seconds")}


class MetricsLog:
    """Appends records to the logs of a run.

    The files are truncated to the first step: records after the last checkpoint of a killed run are written again by
    the resumed one. Raises `MissingExtraError` if TensorBoard is requested and not installed.
    """

    def __init__(self, run: RunFolder, first_step: int = 0, *, tensorboard: bool = False) -> None:
        # Before any file is changed, because it may not be installed.
        self._tensorboard = _open_tensorboard(run, first_step) if tensorboard else None
        run.path.mkdir(parents=True, exist_ok=True)
        truncate_jsonl(run.metrics_file, first_step)
        truncate_jsonl(run.samples_file, first_step)
        self._metrics, self._samples = JsonlWriter(run.metrics_file), JsonlWriter(run.samples_file)

    def record(self, record: MetricsRecord) -> None:
        values = record.to_json()
        self._metrics.write(values)
        if self._tensorboard is not None:
            for key, value in values.items():
                if key not in _NOT_PLOTTED:
                    self._tensorboard.add_scalar(key, value, record.step)  # pyright: ignore  # torch does not annotate it

    def sample(self, sample: SampleRecord) -> None:
        self._samples.write(asdict(sample))
        if self._tensorboard is not None:
            title = f"prompt: {sample.prompt}"
            self._tensorboard.add_text(title, sample.text, sample.step)  # pyright: ignore  # torch does not annotate it

    def close(self) -> None:
        self._metrics.close()
        self._samples.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _open_tensorboard(run: RunFolder, first_step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "track", "--train.tensorboard") from None
    try:
        return SummaryWriter(str(run.tensorboard), purge_step=first_step)
    except UnicodeEncodeError:
        raise TrainingError(
            f"TensorBoard cannot write to {run.tensorboard}: the name is not UTF-8. "
            "Omit --train.tensorboard, or choose another --out."
        ) from None
