"""What a run records besides its metrics: identity, plan, samples, baselines and summary, as typed values.

`RunFolder` reads and writes them; JSON is made there. Fields that a run does not know are None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What a run may not change when it is resumed, and where its token shards are."""

    dataset: str
    """Fingerprint of the token shards."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    model: Mapping[str, Any]
    """The [model] section of the configuration."""
    seed: int
    order: Sequence[object]
    """The order of batches and its stride."""
    optimizer: str
    shards: str | None = None
    """Folder of the token shards; it may have been moved or deleted since."""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """What simpler methods reach on the validation text; a model that learned something does better.

    Units are in the names. The compressors see at most `compressed_train_bytes` of training text and
    `compressed_val_bytes` of validation text.
    """

    uniform_nats_per_token: float | None = None
    unigram_nats_per_token: float | None = None
    unigram_bits_per_byte: float | None = None
    xz_bits_per_byte: float | None = None
    zstd_bits_per_byte: float | None = None
    compressed_train_bytes: int | None = None
    compressed_val_bytes: int | None = None
    val_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """One line of samples.jsonl: what the model generated after a fixed prompt at an evaluation."""

    step: int
    tokens: int
    """Training tokens seen."""
    seed: int
    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is known of a run when training starts."""

    run: str
    data: str
    train_tokens: int
    val_tokens: int
    windows: int
    """Training windows in an epoch."""
    validation_windows: int
    batch_size: int
    """Sequences in a step."""
    tokens_per_step: int
    max_steps: int
    first_step: int
    """Finished updates when this session starts; above 0 for a resumed run."""
    parameters: int
    flops_per_token: float
    """Training FLOPs, forward and backward."""
    memory_bytes: int
    estimated_seconds: float
    budget_seconds: float | None
    """Seconds left of the time budget; None without one."""
    device: str
    precision: str
    threads: int
    baselines: Baselines | None


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The headline figures of a finished run; validation figures are over the whole validation text."""

    run: str
    checkpoint: str | None = None
    steps: int | None = None
    tokens: int | None = None
    """Training tokens seen."""
    epoch: float | None = None
    seconds: float | None = None
    train_loss: float | None = None
    """The last recorded training loss, in nats per token."""
    val_loss: float | None = None
    val_perplexity: float | None = None
    val_bits_per_byte: float | None = None
    best_step: int | None = None
    best_val_loss: float | None = None
    """The lowest validation loss of the evaluations during training."""
    tokens_per_sec: float | None = None
    """Median of the recorded throughput."""
    peak_memory_mb: float | None = None
    parameters: int | None = None
    device: str | None = None
    precision: str | None = None
    command: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The summary as `--json` prints it and summary.json holds it."""
        return asdict(self)
