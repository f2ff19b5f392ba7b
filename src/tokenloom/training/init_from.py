"""Training that goes on from a model that is there: its shape, its tokenizer, its weights, if wanted its optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenloom.config import Config
from tokenloom.config_files import read_toml
from tokenloom.data.tokenizers import Tokenizer, make_tokenizer
from tokenloom.data.tokenizers.load import needs_training
from tokenloom.errors import ConfigError
from tokenloom.model import Model
from tokenloom.weights.lazy_tensors import LazyModel
from tokenloom.weights.load import ResolvedModel, load_optimizer, resolve_model

Layer = Mapping[str, Mapping[str, Any]]

# For a model from elsewhere: a small rate, so that it keeps what it knows while it learns the new text.
FINETUNE_DEFAULTS = {
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "muon_learning_rate": 1e-3,
    "min_lr": 1e-5,
    "schedule": "cosine",
    "warmup_steps": 20,
    "beta1": 0.9,
    "beta2": 0.95,
    "batch_size": 8,
}
# What a run of ours goes on with as it was.
KEPT = (*FINETUNE_DEFAULTS, "decay_fraction", "initial_lr", "weight_decay", "grad_clip", "micro_batch_size")
# Settings of a model that do not change what its weights mean.
FREE = ("block_size", "dropout")
# Tensors with a row for each token.
BY_TOKEN = ("wte.", "lm_head.", "values.")


def configure_init_from(reference: str, preset: Layer, wishes: Sequence[Layer]) -> tuple[Config, list[str]]:
    """The configuration that goes on from `reference`, and what should be told about it.

    Shape and tokenizer are the reference's. The training settings are those of its run, if it comes from one, else
    `FINETUNE_DEFAULTS`; the preset overrides them, and `wishes` override both. Raises `ConfigError` for a wish that the
    weights cannot meet.
    """
    found = resolve_model(reference)
    wished = Config.of(*wishes)
    asked = {key: value for layer in wishes for key, value in layer.get("model", {}).items()}
    model, notices = _shape(found, asked, len(wished.data.add_tokens), reference)
    named = [layer["data"]["tokenizer"] for layer in wishes if "tokenizer" in layer.get("data", {})]
    data = {"tokenizer": _tokenizer_name(found, named[-1] if named else None, reference)}
    preset = {section: values for section, values in preset.items() if section != "model"}
    learning = _learning(found.path)
    if wished.train.init_optimizer:
        kinds = {name.partition("/")[0] for name in load_optimizer(reference)}
        learning = {**learning, "optimizer": "muon" if "muon" in kinds else "adamw"}
    config = Config.of({"train": learning}, preset, *wishes, {"model": model, "data": data})
    return config, [*found.notices, *notices]


def build_initial_model(config: Config) -> Model:
    """The reference's model in the shape of `config`: positions cropped, new tokens at the mean of the old ones."""
    assert config.train.init_from is not None
    found = resolve_model(config.train.init_from)
    model = found.stored.read()
    if model.config == config.model and not config.data.add_tokens:
        return model
    state = model.state_dict()
    if config.model.tie_embeddings:
        state.pop("lm_head.weight")
    fitted = {name: _fit(name, tensor, config, found.tokenizer) for name, tensor in state.items()}
    return LazyModel(config.model, fitted, config.train.init_from).read()


def initial_optimizer_state(config: Config) -> dict[str, Tensor]:
    """What the reference's optimizer remembers, in the shape of `config`; of new tokens it remembers nothing yet."""
    assert config.train.init_from is not None
    tokenizer = resolve_model(config.train.init_from).tokenizer
    return {
        name: _fit(name.split("/", 2)[-1], tensor, config, tokenizer, new=0.0)
        for name, tensor in load_optimizer(config.train.init_from).items()
    }


def _fit(name: str, tensor: Tensor, config: Config, known: Tokenizer, new: float | None = None) -> Tensor:
    """A tensor of the reference with the positions and tokens of `config`; new rows are their mean if `new` is None.

    Rows that a padded vocabulary keeps beyond the tokenizer's tokens are taken first.
    """
    added = len(config.data.add_tokens)
    if name == "wpe.weight" and tensor.ndim:
        return tensor[: config.model.block_size]
    if not added or not tensor.ndim or not name.startswith(BY_TOKEN):
        return tensor
    old = tensor[: known.vocab_size]
    row = old.mean(dim=0, keepdim=True) if new is None else torch.full_like(old[:1], new)
    return torch.cat([old, row.expand(added, -1), tensor[len(old) + added :]])


def _shape(
    found: ResolvedModel, asked: Mapping[str, Any], added: int, reference: str
) -> tuple[dict[str, Any], list[str]]:
    """The reference's [model] with what was asked for, where the weights allow it."""
    has, notices = found.stored.config, []
    for key, value in asked.items():
        if key not in FREE and value not in (None, getattr(has, key, None)):
            raise ConfigError(
                f"model.{key} is {getattr(has, key, None)} in {reference}, not {value}: weights keep their shape. "
                f"Leave it out, or train a new model without --init-from."
            )
    block_size = asked.get("block_size") or has.block_size
    if block_size > has.block_size and has.family == "gpt2":
        raise ConfigError(
            f"model.block_size {block_size:,} is longer than the {has.block_size:,} positions that {reference} knows. "
            f"Use at most --model.block-size {has.block_size}."
        )
    if block_size > has.block_size:
        notices.append(f"the context grows from {has.block_size:,} to {block_size:,} tokens, none so long seen yet")
    elif block_size < has.block_size:
        notices.append(f"the context is cropped from {has.block_size:,} to {block_size:,} tokens, for good")
    if added:
        notices.append(f"{added} new tokens start at the mean of the {found.tokenizer.vocab_size:,} old ones")
    vocab_size = max(has.vocabulary, found.tokenizer.vocab_size + added)
    free = {key: asked[key] for key in FREE if key in asked}
    return {**has.model_dump(), **free, "vocab_size": vocab_size}, notices


def _tokenizer_name(found: ResolvedModel, asked: str | None, reference: str) -> str:
    """The tokenizer to prepare the text with, by a name or path that `load_tokenizer` knows."""
    theirs = found.tokenizer
    if asked is not None:
        if needs_training(asked) or make_tokenizer(asked).fingerprint != theirs.fingerprint:
            raise ConfigError(
                f"{reference} was trained with another tokenizer ({theirs.kind}) than {asked}: its embeddings would "
                "mean nothing. Leave --tokenizer out."
            )
        return asked
    if theirs.kind in ("gpt2", "byte") and not theirs.added:
        return theirs.kind
    folder = found.path if found.path.is_dir() else found.path.parent
    return str(folder.resolve())


def _learning(path: Path) -> Mapping[str, Any]:
    """How the reference's run learned, if it has one."""
    settings = path.parent.parent / "config.toml"  # RUN/checkpoints/step-…
    if not settings.is_file():
        return FINETUNE_DEFAULTS
    train = Config.of(read_toml(settings)).train
    return {name: getattr(train, name) for name in KEPT}
