"""The records of a run besides its metrics: identity, plan, samples, baselines and summary.

`RunFolder` reads and writes them as JSON. A field is None if its value was not measured or does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What must not change when a run is resumed, and the folder of its token shards."""

    dataset: str
    """Fingerprint of the token shards."""
    tokenizer: str
    """Fingerprint of the tokenizer."""
    model: Mapping[str, object]
    """The [model] section of the configuration."""
    seed: int
    order: Sequence[object]
    """The order of the training windows and their stride."""
    optimizer: str
    shards: str | None = None
    """Folder of the token shards; it may no longer exist."""


@dataclass(frozen=True, kw_only=True)
class RunLaunch:
    """The torchrun command that trains a run."""

    id: str
    """The same for processes that it restarts, and for no other command."""
    process: str | None = None
    """The process of rank 0."""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Results of simpler methods on the validation text, for comparison with the model; units are in the names.

    The compressors are given `compressed_train_bytes` of training text and `compressed_val_bytes` of validation text,
    of which `compressed_text_bytes`, the rest being document separators, are the denominator. Figures per byte of the
    model and of all baselines count the bytes of the text only.
    """

    uniform_nats_per_token: float | None = None
    unigram_nats_per_token: float | None = None
    unigram_bits_per_byte: float | None = None
    xz_bits_per_byte: float | None = None
    zstd_bits_per_byte: float | None = None
    compressed_train_bytes: int | None = None
    compressed_val_bytes: int | None = None
    compressed_text_bytes: int | None = None
    """None in runs of version 0.1.0, which divided by `compressed_val_bytes`."""
    val_bytes: int | None = None

    @property
    def separators_counted(self) -> bool:
        """Whether xz and zstd were divided by bytes that include document separators, as in version 0.1.0."""
        return self.compressed_text_bytes is None and self.compressed_val_bytes not in (None, self.val_bytes)


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """One line of samples.jsonl: the text generated for a fixed prompt at an evaluation."""

    step: int
    tokens: int
    """Training tokens seen."""
    seed: int
    prompt: str
    text: str
    """The completion, without the prompt."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """The size, cost and settings of a run, known when training starts."""

    run: str
    data: str
    train_tokens: int
    val_tokens: int
    windows: int
    """Training windows per epoch."""
    validation_windows: int
    batch_size: int
    """Sequences per step."""
    tokens_per_step: int
    max_steps: int
    first_step: int
    """Finished steps when this session starts; above 0 for a resumed run."""
    parameters: int
    flops_per_token: float
    """Training FLOPs, forward and backward pass."""
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
    """The headline figures of a run.

    In a finished run, `val_loss`, `val_perplexity` and `val_bits_per_byte` are over the whole validation text;
    `best_val_loss` and `last_val_loss` are over the part of it, `val_share`, that evaluations during training use.
    """

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
    last_val_loss: float | None = None
    """The validation loss of the last evaluation during training."""
    val_share: float | None = None
    """The share of the validation text that evaluations during training use, 1 for all of it."""
    tokens_per_sec: float | None = None
    """Median of the recorded throughput."""
    peak_memory_mb: float | None = None
    parameters: int | None = None
    device: str | None = None
    precision: str | None = None
    command: str | None = None

    def to_json(self) -> dict[str, object]:
        """The summary as `--json` prints it and summary.json stores it."""
        return asdict(self)
