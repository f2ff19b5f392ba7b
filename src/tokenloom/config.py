"""Configuration: frozen classes, filled from a preset, then a TOML file, then flags.

The field docstrings below are the help texts of the command line, whose flags are derived from these classes:
`TrainConfig.max_steps` is `--train.max-steps`. `None` means off (or "decide for me" where the text says so) and is
written "none" in TOML and on the command line.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tokenloom.config_aliases import CONFIG_ALIASES
from tokenloom.errors import ConfigError

Family = Literal["gpt2", "modern"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Schedule = Literal["constant", "linear", "cosine", "wsd"]


class Section(BaseModel):
    """A table of settings: frozen, unknown keys refused, "none" understood where a setting may be off."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _none_as_text(cls, values: Any) -> Any:
        # TOML has no null: "none" stands for it, but only where the field may be off.
        if not isinstance(values, Mapping):
            return values
        may_be_off = {name for name, field in cls.model_fields.items() if "None" in str(field.annotation)}
        return {k: None if k in may_be_off and v in ("none", "None") else v for k, v in values.items()}


class ModelConfig(Section):
    """The shape of a model: what its weights look like."""

    family: Family = "modern"
    """gpt2 (as published, and as the book builds it) or modern (rotary positions, RMSNorm, ReLU²)."""
    vocab_size: int | None = Field(default=None, gt=0)
    """Tokens that the model knows; none: as many as the tokenizer has."""
    block_size: int = Field(default=256, gt=0)
    """Context length in tokens."""
    n_layer: int = Field(default=4, gt=0)
    """Transformer blocks."""
    n_head: int = Field(default=4, gt=0)
    """Attention heads; must divide n_embd."""
    n_kv_head: int | None = Field(default=None, gt=0)
    """Key and value heads, shared by groups of query heads (modern only); none: n_head."""
    n_embd: int = Field(default=256, gt=0)
    """Width of the residual stream."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation while training."""
    tie_embeddings: bool = True
    """Use the token embedding as the output head too."""
    qkv_bias: bool = True
    """Biases on the query, key and value projections (gpt2 only)."""
    init: Literal["gpt2", "book"] = "gpt2"
    """Initial weights (gpt2 only): as GPT-2's, or draw for draw as the book's classes under the same seed."""
    softcap: float | None = Field(default=15.0, gt=0)
    """Bound on the logits, softcap·tanh(logits/softcap) (modern only)."""
    bigram_buckets: int | None = Field(default=None, gt=0)
    """Rows of the hashed table that embeds each pair of neighbouring tokens (modern only)."""
    value_embeddings: bool = False
    """Add a learned embedding of the token to the values of every other block (modern only)."""

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def vocabulary(self) -> int:
        """`vocab_size`, once it is known."""
        if self.vocab_size is None:
            raise ConfigError(
                "model.vocab_size is not set. Set it, or build the model from a run, whose tokenizer tells it."
            )
        return self.vocab_size


class DataConfig(Section):
    """Where the text comes from and how it becomes batches of tokens."""

    sources: tuple[str, ...] = ("python-docs",)
    """Files, folders, globs, "-" (stdin), hf:NAME, a folder of token shards, or a named corpus."""
    tokenizer: str = "bpe:2048"
    """gpt2, char, byte, bpe:N (trained on the text), or the path of a tokenizer.json."""
    add_tokens: tuple[str, ...] = ()
    """Tokens to add to the tokenizer's, such as <|user|>: found whole wherever the text has them."""
    val_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share kept for validation: the end of a single text, or whole documents chosen by hash."""
    text_key: str = "text"
    """Key (JSONL) or column (Parquet, datasets) that holds the text."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Invalid UTF-8: refuse it, naming file and byte, or replace it with U+FFFD and count."""
    endoftext: Literal["token", "text", "refuse"] = "token"
    """"<|endoftext|>" written inside a text: make it the token, keep it as plain text, or refuse it."""
    order: Literal["windows", "offsets"] = "windows"
    """windows: every window once an epoch, reshuffled each time; offsets: random places, as nanoGPT."""
    stride: int | None = Field(default=None, gt=0)
    """Distance between the starts of windows; none: block_size, so that none overlap."""
    workers: int | None = Field(default=None, gt=0)
    """Processes that prepare data; none: one for each core."""


class TrainConfig(Section):
    """How the weights are found."""

    init_from: str | None = None
    """A model to go on from: its weights, shape and tokenizer; none: a new model."""
    init_optimizer: bool = False
    """Take over what the optimizer of init_from remembers, too."""
    max_steps: int = Field(default=1000, gt=0)
    """Updates in all; the schedule ends here."""
    batch_size: int = Field(default=16, gt=0)
    """Sequences in an update, over all devices and accumulated micro-batches."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Sequences that pass through a device at once; must divide batch_size; none: all of a device's share."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """adamw for everything, or muon for the matrices of the blocks and adamw for the rest."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak learning rate of AdamW."""
    muon_learning_rate: float = Field(default=0.02, gt=0)
    """Peak learning rate of Muon."""
    min_lr: float = Field(default=0.0, ge=0)
    """Where the learning rate ends (of AdamW; Muon's ends at the same share of its peak)."""
    schedule: Schedule = "wsd"
    """constant, linear or cosine decay after the warmup, or wsd: constant, then linear decay at the end."""
    warmup_steps: int = Field(default=10, ge=0)
    """Updates over which the learning rate rises from warmup_from to its peak."""
    initial_lr: float = Field(default=0.0, ge=0)
    """Where the warmup starts (of AdamW; Muon's starts at the same share of its peak)."""
    decay_fraction: float = Field(default=0.6, gt=0, le=1)
    """Share of the updates after the warmup, at the end, over which wsd decays."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, on matrices and embeddings only."""
    beta1: float = Field(default=0.8, ge=0, lt=1)
    """AdamW's decay of the gradient's mean."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's decay of the squared gradient's mean."""
    grad_clip: float | None = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient."""
    eval_interval: int | None = Field(default=None, gt=0)
    """Updates between evaluations; none: a tenth of max_steps, at most 1000."""
    eval_batches: int | None = Field(default=8, gt=0)
    """Batches of validation text in an evaluation on the way, spread evenly; none: all, as at the end."""
    save_interval: int | None = Field(default=None, gt=0)
    """Updates between checkpoints; none: as eval_interval."""
    log_interval: int = Field(default=10, gt=0)
    """Updates between records of the training loss."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Newest checkpoints that are kept, besides the best."""
    patience: int | None = Field(default=None, gt=0)
    """Stop after this many evaluations without a better validation loss."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    precision: Precision = "auto"
    """auto: bf16 where the device is fast at it, else fp32."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), or a device by name."""
    compile: bool = False
    """Compile the model with torch.compile: a slow start, faster steps."""
    seed: int = Field(default=1337, ge=0)
    """Seed of weights, batches and dropout."""
    tensorboard: bool = False
    """Write TensorBoard events into the run as well."""

    @property
    def eval_every(self) -> int:
        return self.eval_interval or min(1000, max(1, self.max_steps // 10))

    @property
    def save_every(self) -> int:
        return self.save_interval or self.eval_every


class SampleConfig(Section):
    """What the model is asked to write at every evaluation: prompts and seeds stay, so that samples compare."""

    prompts: tuple[str, ...] = ("",)
    """Texts to continue; an empty one starts a new document."""
    max_new_tokens: int = Field(default=80, ge=0)
    """Tokens to write after each prompt; 0: no samples."""
    temperature: float = Field(default=0.8, ge=0)
    """Sharpness of the choice: 0 takes the likeliest token."""
    top_k: int | None = Field(default=50, gt=0)
    """Choose among this many likeliest tokens only."""
    seed: int = Field(default=1, ge=0)
    """Seed of the sampled tokens."""


class Config(Section):
    """Everything that decides what a run does; saved in the run's folder as config.toml."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        model, train = self.model, self.train
        width_step = model.n_head if model.family == "gpt2" else 2 * model.n_head  # heads that rotate have pairs
        _refuse_unless(
            model.n_embd % model.n_head == 0,
            f"model.n_embd {model.n_embd} is not a multiple of model.n_head {model.n_head}. "
            f"Try --model.n-embd {max(1, round(model.n_embd / width_step)) * width_step}.",
        )
        _refuse_unless(
            model.n_head % model.kv_heads == 0,
            f"model.n_kv_head {model.kv_heads} does not divide model.n_head {model.n_head}. Choose a divisor.",
        )
        _refuse_unless(
            model.family == "modern" or model.n_kv_head is None,
            "model.n_kv_head is for the modern family only. Leave it out, or pass --model.family modern.",
        )
        _refuse_unless(
            model.family == "gpt2" or model.head_dim % 2 == 0,
            f"rotary positions need an even head size, got n_embd / n_head = {model.head_dim}. Choose another n_head.",
        )
        _refuse_unless(
            train.micro_batch_size is None or train.batch_size % train.micro_batch_size == 0,
            f"train.micro_batch_size {train.micro_batch_size} does not divide train.batch_size {train.batch_size}. "
            "Choose a divisor.",
        )
        _refuse_unless(
            train.init_from is not None or not train.init_optimizer,
            "train.init_optimizer needs a model to take it from. Add --init-from, or leave it out.",
        )
        _refuse_unless(
            train.min_lr <= train.learning_rate,
            f"train.min_lr {train.min_lr:g} is above train.learning_rate {train.learning_rate:g}. Lower it.",
        )
        return self

    @classmethod
    def of(cls, *layers: Mapping[str, Any]) -> Config:
        """Merge nested mappings, later ones winning, over the defaults; raises `ConfigError`."""
        merged: dict[str, Any] = {}
        for layer in layers:
            _refuse_unknown(layer)
            for section, values in layer.items():
                merged.setdefault(section, {}).update(values)
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(explain(error)) from None

    def with_values(self, **sections: Mapping[str, Any]) -> Config:
        """A copy with some fields replaced: `config.with_values(model={"vocab_size": 257})`."""
        return Config.of(self.model_dump(), sections)

    def to_toml(self) -> str:
        values = self.model_dump(mode="json")
        for section in values.values():
            section.update({name: "none" for name, value in section.items() if value is None})
        return tomli_w.dumps(values)


def read_toml(path: Path) -> dict[str, Any]:
    """The nested mapping in a TOML file; raises `ConfigError` where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise ConfigError(f"configuration {path} is a folder. Name a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path} is not valid TOML: {error}. Mend that line.") from None


def preset_names() -> list[str]:
    files = resources.files("tokenloom").joinpath("presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".toml"))


def read_preset(name: str) -> dict[str, Any]:
    """The nested mapping of a preset; raises `ConfigError` for an unknown name."""
    known = preset_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        guess = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f'there is no preset "{name}".{guess} All: {", ".join(known)}.')
    return tomllib.loads(resources.files("tokenloom").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8"))


def known_keys() -> list[str]:
    """Every field as `section.name`."""
    return [
        f"{section}.{name}"
        for section, field in Config.model_fields.items()
        for name in field.annotation.model_fields  # type: ignore[union-attr]
    ]


def suggest(key: str) -> str | None:
    """Our name for what users of other tools call `key`, else the nearest name of ours, if any is near."""
    key = key.replace("-", "_").lower()
    bare = key.rpartition(".")[2]
    same_field = [known for known in known_keys() if known.partition(".")[2] == bare]
    near = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.6)
    candidates = [CONFIG_ALIASES.get(bare), *same_field, *near]
    return next(filter(None, candidates), None)


def explain(error: ValidationError, section: str = "") -> str:
    """One line for what pydantic found first."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first.get("ctx", {}).get("error"))
    key = ".".join(str(part) for part in (*filter(None, [section]), *first["loc"]))
    problem = first["msg"][0].lower() + first["msg"][1:]
    return f"{key}: {problem}, got {first['input']!r}. Change {key}."


def _refuse_unknown(layer: Mapping[str, Any]) -> None:
    known = set(known_keys())
    for section, values in layer.items():
        if section not in Config.model_fields:
            raise ConfigError(_unknown(section))
        if not isinstance(values, Mapping):
            raise ConfigError(f"[{section}] must be a table, got {values!r}. Write [{section}] and its keys below it.")
        for name in values:
            if f"{section}.{name}" not in known:
                raise ConfigError(_unknown(f"{section}.{name}"))


def _unknown(key: str) -> str:
    ours = suggest(key)
    return f'unknown configuration key "{key}". ' + (f"Did you mean {ours}?" if ours else "See tokenloom train --help.")


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]}?" if near else ""
