"""The replies of `runs_api.py`, `copied_api.py` and `models_api.py`, for /openapi.json."""

from __future__ import annotations

from pydantic import ConfigDict, JsonValue

from tokenloom.config import Config, ModelConfig
from tokenloom.reporting.run_state import RunState
from tokenloom.run_records import Baselines, RunPlan
from tokenloom.serving.reply_schema import Number, Reply


class RunFiguresReply(Reply):
    """The figures of a run; null for what was not measured."""

    checkpoint: str | None
    steps: int | None
    tokens: int | None
    epoch: Number | None
    seconds: Number | None
    train_loss: Number | None
    val_loss: Number | None
    val_perplexity: Number | None
    val_bits_per_byte: Number | None
    best_step: int | None
    best_val_loss: Number | None
    tokens_per_sec: Number | None
    parameters: int | None
    device: str | None
    precision: str | None


class RunRowReply(RunFiguresReply):
    """A run in the table of runs; null for what is not known."""

    run: str
    """Its id."""
    path: str
    state: RunState
    changed: float | None
    """When the last record was written, in seconds since 1970."""
    process: int | None
    """The process that trains it."""
    data: str | None
    family: str | None
    tokenizer: str | None
    max_steps: int | None
    seconds_left: Number | None
    problem: str | None
    """Why a file of the run cannot be read."""


class MetricReply(Reply):
    """What a metric is called."""

    key: str
    label: str
    unit: str


class RunListReply(Reply):
    """All runs, and the metrics that they can have."""

    runs: list[RunRowReply]
    models_version: str
    """Another text whenever a checkpoint was written or removed."""
    metrics: list[MetricReply]


class DifferenceReply(Reply):
    """A setting that is not the same in all of the runs."""

    key: str
    values: list[JsonValue]
    """One for each run."""


class DifferencesReply(Reply):
    """The settings in which runs differ."""

    runs: list[str]
    differences: list[DifferenceReply]


class AppendedReply(Reply):
    """What a file has after a cursor."""

    cursor: str
    """For the next request."""
    reset: bool
    """The file was replaced: these are all that it has, and earlier ones are void."""
    more: bool
    """There are further ones: ask again with the cursor."""


class RecordsReply(AppendedReply):
    """Records of metrics."""

    records: list[dict[str, Number]]


class SampleReply(Reply):
    """A text that was generated during training."""

    model_config = ConfigDict(extra="allow")  # as in the file

    step: int
    prompt: str
    text: str
    """The completion, without the prompt."""


class SamplesReply(AppendedReply):
    """Samples."""

    samples: list[SampleReply]


class NonFiniteReply(Reply):
    """A value that is not finite."""

    step: int
    value: str


class AxesReply(Reply):
    """Where the points or buckets of metrics are."""

    step: list[float]
    tokens: list[float]
    epoch: list[float]
    seconds: list[float]


class OneSeriesReply(Reply):
    """A metric: every point, or buckets of neighboring points."""

    axes: int
    """The place of its axes in their list."""
    count: int
    """Finite values in the range."""
    bucketed: bool
    value: list[float]
    """The values, or the means of the buckets."""
    low: list[float] | None
    """The lowest value of every bucket; null for points."""
    high: list[float] | None
    non_finite: list[NonFiniteReply]
    non_finite_count: int


class SeriesReply(Reply):
    """Metrics by their keys."""

    axes: list[AxesReply]
    series: dict[str, OneSeriesReply]
    records: int
    cursor: str
    """Where to continue with the records."""


class CheckpointReply(Reply):
    """A model or a checkpoint."""

    id: str
    name: str
    """The id with the step."""
    run: str | None
    step: int | None
    created: int
    """In seconds since 1970."""


class EvaluatedCheckpointReply(CheckpointReply):
    """A checkpoint of a run, with the figures of the evaluation at its step; null if there was none."""

    val_loss: Number | None
    val_bits_per_byte: Number | None


class SummaryReply(RunFiguresReply):
    """The figures of a finished run."""

    run: str
    """Its folder."""
    last_val_loss: Number | None
    val_share: Number | None
    peak_memory_mb: Number | None
    command: str | None


class RunReply(Reply):
    """A run; only the row and the models if a file of it cannot be read."""

    row: RunRowReply
    config: Config | None = None
    plan: RunPlan | None = None
    baselines: Baselines | None = None
    summary: SummaryReply | None = None
    models: list[EvaluatedCheckpointReply]


class PassageReply(Reply):
    """Characters `start` to `end` - 1 of a text, which are in the training text too."""

    start: int
    end: int
    position: int
    """Of its first token in the training text."""
    before: str
    """The training text before the passage, within its document."""
    after: str


class CopiedTextReply(Reply):
    """The passages of a text that are copied, in order; they can overlap."""

    copied_characters: int
    """Characters that are in some passage."""
    passages: list[PassageReply]
    training_tokens: int
    """Of the whole training text."""
    compared_tokens: int
    """Of them, the first ones, with which the text was compared."""
    shortest_tokens: int
    """Tokens of the shortest passage that is found."""


class CopiedReply(Reply):
    """What is copied in each of the texts of a request."""

    problem: str | None
    """Why nothing was compared."""
    texts: list[CopiedTextReply]
    """One for each text; empty if there is a problem."""


class StoredModelReply(CheckpointReply):
    """A model, and the memory that it takes up."""

    memory_bytes: int | None
    """Null if it is not in memory."""


class MemoryUseReply(Reply):
    """A model in memory."""

    id: str | None
    """Null if its files were removed."""
    name: str
    memory_bytes: int
    users: int
    """Requests that use it now."""


class StoredModelsReply(Reply):
    """All models, and those in memory."""

    models: list[StoredModelReply]
    in_memory: list[MemoryUseReply]
    """The least recently used first."""
    memory_bytes: int
    memory_budget_bytes: int
    device: str
    precision: str


class ShapeReply(Reply):
    """The shape of a model, in which defaults are filled in."""

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    width: int
    mlp_width: int
    context: int
    vocabulary: int
    parameters: int


class ModelConfigReply(CheckpointReply):
    """A model with its configuration."""

    config: ModelConfig
    shape: ShapeReply
