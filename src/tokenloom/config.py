"""Configuration: frozen classes, filled from a preset, then a TOML file, then flags.

Field docstrings are the help texts of the command line, whose flags are derived from these classes:
`TrainConfig.max_steps` is `--train.max-steps`. `None` disables a setting, or selects the default that its docstring
describes; TOML files and the command line spell it "none".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from tokenloom.config_aliases import nearest_key, unknown_table
from tokenloom.config_files import dump_toml
from tokenloom.config_values import check_changes, check_number, validation_message
from tokenloom.errors import ConfigError

Family = Literal["gpt2", "modern"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["constant", "linear", "cosine", "wsd"]
Strategy = Literal["auto", "ddp", "fsdp"]
Settings = Mapping[str, Mapping[str, Any]]
"""Values for some fields, nested like the TOML file: `{"train": {"max_steps": 100}}`."""


class Section(BaseModel):
    """Base of the sections: frozen, rejects unknown keys, reads "none" as None where a field is optional.

    Integers are exact and have at most 64 bits: 2.5 is not rounded, and true is not 1. Other numbers are finite.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _parse_none(cls, values: object) -> object:
        # TOML has no null. Only optional fields read "none" as None: elsewhere it may be a text like any other.
        if not isinstance(values, Mapping):
            return values
        optional = {name for name, field in cls.model_fields.items() if "None" in str(field.annotation)}
        items = cast(Mapping[str, object], values).items()
        return {name: None if name in optional and value in ("none", "None") else value for name, value in items}

    @field_validator("*", mode="before")
    @classmethod
    def _check_number(cls, value: object, info: ValidationInfo) -> object:
        check_number(value, cls.model_fields[str(info.field_name)].annotation)
        return value


class ModelConfig(Section):
    """Architecture of a model."""

    family: Family = "modern"
    """Architecture: gpt2 (as published and as in the book) or modern (that of Qwen3)."""
    vocab_size: int | None = Field(default=None, gt=0)
    """Vocabulary size. Defaults to that of the tokenizer."""
    block_size: int = Field(default=256, gt=0)
    """Context length in tokens."""
    n_layer: int = Field(default=4, gt=0)
    """Number of transformer blocks."""
    n_head: int = Field(default=4, gt=0)
    """Number of attention heads. Must divide n_embd."""
    n_kv_head: int | None = Field(default=None, gt=0)
    """Number of key/value heads for grouped-query attention (modern only). Defaults to n_head."""
    n_embd: int = Field(default=256, gt=0)
    """Embedding dimension, the width of the residual stream."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of an attention head (modern only). Defaults to n_embd / n_head."""
    n_inner: int | None = Field(default=None, gt=0)
    """Width of the MLP (modern only). Defaults to 8/3 of n_embd, rounded up to a multiple of 32."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies (modern only)."""
    norm_eps: float = Field(default=1e-6, gt=0)
    """Epsilon of RMSNorm (modern only)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability during training."""
    tie_embeddings: bool = True
    """Share weights between the token embedding and the output head."""
    qkv_bias: bool = True
    """Add biases to the query, key and value projections (gpt2 only)."""
    gelu: Literal["tanh", "exact"] = "tanh"
    """GELU of the MLP (gpt2 only): its tanh approximation, as in GPT-2, or the exact one, as in nanoGPT."""
    init: Literal["gpt2", "book"] = "gpt2"
    """Weight initialization (gpt2 only): as in GPT-2, or identical to the book's code under the same seed."""

    @property
    def head_size(self) -> int:
        """`head_dim` with its default filled in."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        """`n_inner` with its default filled in; 4 · n_embd for gpt2."""
        if self.family == "gpt2":
            return 4 * self.n_embd
        return self.n_inner or -(-8 * self.n_embd // 3 // 32) * 32

    @property
    def kv_heads(self) -> int:
        """`n_kv_head` with its default filled in."""
        return self.n_kv_head or self.n_head

    @property
    def vocabulary(self) -> int:
        """`vocab_size`; raises `ConfigError` if it is not set."""
        if self.vocab_size is None:
            raise ConfigError(
                "model.vocab_size is not set. Set it, or load the model from a run, which includes the tokenizer."
            )
        return self.vocab_size


class DataConfig(Section):
    """Sources of text, tokenization and batching."""

    sources: tuple[str, ...] = ("python-docs",)
    """Files, folders, globs, - (stdin), hf:NAME, a folder of token shards, or a named corpus."""
    tokenizer: str = "bpe:2048"
    """Tokenizer: gpt2, char, byte, bpe:N (trained on the text), or the path of a tokenizer.json."""
    add_tokens: tuple[str, ...] = ()
    """Tokens to add to the vocabulary, such as <|user|>; they are never split."""
    val_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Fraction held out for validation: whole documents selected by hash, or else the end of the text."""
    text_key: str = "text"
    """Key (JSONL) or column (Parquet, datasets) that contains the text."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Handling of invalid UTF-8: stop with an error, or replace it with U+FFFD and report the count."""
    endoftext: Literal["token", "text", "refuse"] = "token"
    """Handling of "<|endoftext|>" inside a text: encode it as the special token, as plain text, or raise an error."""
    order: Literal["windows", "shifted", "offsets"] = "shifted"
    """Batch order: all windows once per epoch, at the same positions (windows) or new ones (shifted); or offsets."""
    stride: int | None = Field(default=None, gt=0)
    """Tokens between the starts of consecutive training windows. Defaults to block_size (no overlap)."""
    workers: int | None = Field(default=None, gt=0)
    """Number of processes for data preparation. Defaults to the number of CPU cores."""


class TrainConfig(Section):
    """Optimization, evaluation, checkpoints and hardware."""

    init_from: str | None = None
    """Pretrained model to start from, with its architecture and tokenizer: a run, a checkpoint, or a name like gpt2."""
    init_optimizer: bool = False
    """Also restore the optimizer state of the model that init_from names."""
    max_steps: int = Field(default=1000, gt=0)
    """Total number of optimizer steps; the learning rate schedule ends here."""
    earlier_max_steps: tuple[tuple[int, int], ...] = ()
    """Values of max_steps before a time budget changed it, as pairs: the step of the change, and the earlier value."""
    batch_size: int = Field(default=16, gt=0)
    """Sequences per step, over all devices and accumulated micro-batches."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Sequences per forward pass on each device. Must divide batch_size. Defaults to no gradient accumulation."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """Optimizer: adamw for all parameters, or muon for the matrices of the blocks and adamw for the rest."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = Field(default=0.02, gt=0)
    """Peak learning rate of Muon."""
    min_lr: float = Field(default=0.0, ge=0)
    """Final learning rate of AdamW; Muon's is scaled by the same ratio."""
    schedule: Schedule = "wsd"
    """Learning rate schedule after the warmup; wsd (warmup–stable–decay) is constant, then decays linearly."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps over which the learning rate rises linearly from initial_lr to its peak."""
    initial_lr: float = Field(default=0.0, ge=0)
    """Learning rate of AdamW at the start of the warmup; Muon's is scaled by the same ratio."""
    decay_fraction: float = Field(default=0.6, gt=0, le=1)
    """Final fraction of the steps after the warmup over which wsd decays."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, applied to matrices and embeddings only."""
    beta1: float = Field(default=0.8, ge=0, lt=1)
    """Decay rate of AdamW's first-moment estimate."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay rate of AdamW's second-moment estimate."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """Max global gradient norm; "none" disables clipping."""
    eval_interval: int | None = Field(default=None, gt=0)
    """Steps between evaluations. Defaults to a tenth of max_steps, rounded up, at most 1000."""
    eval_batches: int | None = Field(default=8, gt=0)
    """Batches of batch_size windows per evaluation, evenly spaced; "none" uses the whole validation text."""
    save_interval: int | None = Field(default=None, gt=0)
    """Steps between checkpoints. Defaults to eval_interval."""
    log_interval: int = Field(default=10, gt=0)
    """Steps between records of the training loss."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Number of recent checkpoints to keep, besides the weights of the best and of the first evaluation."""
    patience: int | None = Field(default=None, gt=0)
    """Stop early after this many evaluations without a lower validation loss. Disabled by default."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass, which saves memory and costs time."""
    precision: Precision = "auto"
    """Precision of matrix products; auto selects bf16 if it is fast on the device, fp32 otherwise."""
    device: str = "auto"
    """Device: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    strategy: Strategy = "auto"
    """Training in several processes (torchrun): ddp gives each the whole model, fsdp a part; auto chooses by memory."""
    replicas: int = Field(default=1, gt=0)
    """Copies of the model with fsdp: each is divided among an equal part of the processes (hybrid sharding)."""
    compile: bool | None = None
    """Compile the model: slower start, faster steps. Defaults to yes if training takes long enough to gain from it."""
    seed: int = Field(default=1337, ge=0)
    """Random seed for weights, batches and dropout."""
    tensorboard: bool = False
    """Also write TensorBoard events to the run folder."""

    @property
    def eval_every(self) -> int:
        """`eval_interval` with its default filled in."""
        return self.eval_interval or min(1000, math.ceil(self.max_steps / 10))

    @property
    def save_every(self) -> int:
        """`save_interval` with its default filled in."""
        return self.save_interval or self.eval_every


class SampleConfig(Section):
    """Samples generated at every evaluation, with fixed prompts and seeds so that they can be compared."""

    prompts: tuple[str, ...] = ("",)
    """Prompts to continue at every evaluation; an empty one starts a new document."""
    max_new_tokens: int = Field(default=80, ge=0)
    """Max tokens to generate per sample; 0 disables samples."""
    temperature: float = Field(default=0.8, ge=0)
    """Sampling temperature; 0 is greedy decoding."""
    top_k: int | None = Field(default=50, gt=0)
    """Sample from the k most likely tokens only."""
    seed: int = Field(default=1, ge=0)
    """Random seed for sampling."""


class Config(Section):
    """The resolved configuration of a run; saved in its folder as config.toml."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        model, train = self.model, self.train
        # Rotary embeddings rotate pairs, so the head size of the modern family is even.
        width_step = model.n_head if model.family == "gpt2" else 2 * model.n_head
        _require(
            model.head_dim is not None or model.n_embd % model.n_head == 0,
            f"model.n_embd {model.n_embd} is not a multiple of model.n_head {model.n_head}. "
            f"Try --model.n-embd {max(1, round(model.n_embd / width_step)) * width_step}.",
        )
        _require(
            model.n_head % model.kv_heads == 0,
            f"model.n_kv_head {model.kv_heads} does not divide model.n_head {model.n_head}. Choose a divisor.",
        )
        for name in ("n_kv_head", "head_dim", "n_inner"):
            _require(
                model.family == "modern" or getattr(model, name) is None,
                f"model.{name} is for the modern family only. Omit it, or pass --model.family modern.",
            )
        _require(
            model.family == "gpt2" or model.head_size % 2 == 0,
            f"rotary embeddings need an even head size, got {model.head_size}. Choose another n_head or head_dim.",
        )
        _require(
            train.micro_batch_size is None or train.batch_size % train.micro_batch_size == 0,
            f"train.micro_batch_size {train.micro_batch_size} does not divide train.batch_size {train.batch_size}. "
            "Choose a divisor.",
        )
        _require(
            train.replicas == 1 or train.strategy != "ddp",
            f"train.replicas {train.replicas} is for fsdp: with ddp, each process has a copy. "
            "Use --train.replicas 1, or --strategy fsdp.",
        )
        _require(
            train.init_from is not None or not train.init_optimizer,
            "train.init_optimizer needs train.init_from. Add --init-from, or omit --init-optimizer.",
        )
        _require(
            train.min_lr <= train.learning_rate,
            f"train.min_lr {train.min_lr:g} is above train.learning_rate {train.learning_rate:g}. Lower it.",
        )
        check_changes(train.earlier_max_steps, train.max_steps)
        return self

    @classmethod
    def of(cls, *layers: Mapping[str, Any]) -> Config:
        """Merge `Settings`, later ones taking precedence, over the defaults; raises `ConfigError`."""
        merged: dict[str, dict[str, object]] = {}
        for layer in layers:
            _check_keys(layer)
            for section, values in layer.items():
                before = merged.setdefault(section, {})
                if values.get("max_steps", before.get("max_steps")) != before.get("max_steps"):
                    before.pop("earlier_max_steps", None)  # the new number applies from the first step on
                before.update(values)
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(validation_message(error)) from None

    def with_values(self, **sections: Mapping[str, Any]) -> Config:
        """A copy with some fields replaced: `config.with_values(model={"vocab_size": 257})`."""
        return Config.of(self.model_dump(), sections)

    def to_toml(self) -> str:
        """The configuration as a TOML document, with "none" for None."""
        return dump_toml(self.model_dump(mode="json"))


def config_sections() -> dict[str, type[Section]]:
    """The class of each section, by name."""
    annotations = {name: field.annotation for name, field in Config.model_fields.items()}
    return {name: kind for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, Section)}


def config_keys() -> list[str]:
    """Every field as `section.field`."""
    return [f"{section}.{field}" for section, kind in config_sections().items() for field in kind.model_fields]


def suggest_key(name: str) -> str | None:
    """The key that a mistyped name, or another tool's name for it, most likely stands for."""
    return nearest_key(name, config_keys())


def _check_keys(layer: Mapping[str, object]) -> None:
    keys, tables = set(config_keys()), list(Config.model_fields)
    for section, values in layer.items():
        if section not in tables:
            raise ConfigError(unknown_table(section, tables) if isinstance(values, Mapping) else _unknown_key(section))
        if not isinstance(values, Mapping):
            raise ConfigError(f"[{section}] must be a table, got {values!r}. Write [{section}] and its keys below it.")
        for name in cast(Mapping[str, object], values):
            if f"{section}.{name}" not in keys:
                raise ConfigError(_unknown_key(f"{section}.{name}"))


def _unknown_key(name: str) -> str:
    key = suggest_key(name)
    return f'unknown configuration key "{name}". ' + (f"Did you mean {key}?" if key else "See tokenloom train --help.")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
