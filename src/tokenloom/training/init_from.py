"""Training that starts from an existing model: its shape, tokenizer, weights and, if configured, optimizer state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenloom.config import Config, ModelConfig, Settings
from tokenloom.data.tokenizers import load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.huggingface_files import has_tokenizer_files
from tokenloom.data.tokenizers.load import needs_training
from tokenloom.errors import ConfigError
from tokenloom.model import GPT
from tokenloom.run_folder import RunFolder
from tokenloom.weights.lazy_tensors import LazyModel
from tokenloom.weights.load import ResolvedModel, load_optimizer, resolve_model

# Training settings for a model that does not come from a run. The learning rates are low, so that fine-tuning changes
# the pretrained weights only slightly.
FINETUNE_DEFAULTS: Mapping[str, object] = {
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
# Training settings that are inherited from the model's run, if it comes from one.
INHERITED_SETTINGS = (
    *FINETUNE_DEFAULTS,
    "decay_fraction",
    "initial_lr",
    "weight_decay",
    "grad_clip",
    "micro_batch_size",
)
# Model settings that can be changed without new weights.
CHANGEABLE_SETTINGS = ("block_size", "dropout")
# Prefixes of the tensors with one row per token.
TOKEN_TENSORS = ("wte.", "lm_head.")


def configure_init_from(reference: str, preset: Settings, overrides: Sequence[Settings]) -> tuple[Config, list[str]]:
    """The configuration of a run that starts from `reference`, and notices for the user.

    Shape and tokenizer are those of the referenced model. Training settings are those of its run, if it comes from
    one, else `FINETUNE_DEFAULTS`; the preset takes precedence over them, and `overrides` over both. Raises
    `ConfigError` for overrides that do not match the weights.
    """
    resolved = resolve_model(reference)
    requested = Config.of(*overrides)
    model_overrides = {key: value for layer in overrides for key, value in layer.get("model", {}).items()}
    model, notices = _model_settings(resolved, model_overrides, len(requested.data.add_tokens), reference)
    tokenizers = [layer["data"]["tokenizer"] for layer in overrides if "tokenizer" in layer.get("data", {})]
    data = {"tokenizer": _tokenizer_spec(resolved, tokenizers[-1] if tokenizers else None, reference)}
    preset = {section: values for section, values in preset.items() if section != "model"}
    train = _train_settings(resolved)
    if requested.train.init_optimizer:
        kinds = {name.partition("/")[0] for name in load_optimizer(reference)}
        train = {**train, "optimizer": "muon" if "muon" in kinds else "adamw"}
    config = Config.of({"train": train}, preset, *overrides, {"model": model, "data": data})
    return config, [*resolved.notices, *notices]


def build_initial_model(config: Config) -> GPT:
    """The model `train.init_from` in the shape of `config`: positions cropped, added tokens at the mean embedding."""
    assert config.train.init_from is not None
    resolved = resolve_model(config.train.init_from)
    model = resolved.stored.read()
    if model.config == config.model and not config.data.add_tokens:
        return model
    state = model.state_dict()
    if config.model.tie_embeddings:
        state.pop("lm_head.weight")
    resized = {name: _resize(name, tensor, config, resolved.tokenizer.vocab_size) for name, tensor in state.items()}
    return LazyModel(config.model, resized, config.train.init_from).read()


def initial_optimizer_state(config: Config) -> dict[str, Tensor]:
    """The optimizer state of `train.init_from` in the shape of `config`; zero for added tokens."""
    assert config.train.init_from is not None
    vocab_size = resolve_model(config.train.init_from).tokenizer.vocab_size
    return {
        name: _resize(name.split("/", 2)[-1], tensor, config, vocab_size, added_value=0.0)
        for name, tensor in load_optimizer(config.train.init_from).items()
    }


def _resize(name: str, tensor: Tensor, config: Config, vocab_size: int, added_value: float | None = None) -> Tensor:
    """A tensor with the positions and tokens of `config`. Rows of added tokens get `added_value`, or the mean row.

    If the vocabulary is padded, added tokens use the rows after the tokenizer's `vocab_size` first.
    """
    added = len(config.data.add_tokens)
    if name == "wpe.weight" and tensor.ndim:
        return tensor[: config.model.block_size]
    if not added or not tensor.ndim or not name.startswith(TOKEN_TENSORS):
        return tensor
    rows = tensor[:vocab_size]
    row = rows.mean(dim=0, keepdim=True) if added_value is None else torch.full_like(rows[:1], added_value)
    return torch.cat([rows, row.expand(added, -1), tensor[len(rows) + added :]])


def _model_settings(
    resolved: ResolvedModel, overrides: Mapping[str, Any], added_tokens: int, reference: str
) -> tuple[dict[str, object], list[str]]:
    """[model] of the referenced model, with the overrides that its weights allow."""
    model, notices = resolved.stored.config, list[str]()
    _refuse_new_shape(model, overrides, reference)
    block_size = overrides.get("block_size") or model.block_size
    if block_size > model.block_size and model.family == "gpt2":
        raise ConfigError(
            f"model.block_size {block_size:,} is longer than the {model.block_size:,} positions of {reference}. "
            f"Use at most --model.block-size {model.block_size}."
        )
    if block_size > model.block_size:
        notices.append(
            f"the context grows from {model.block_size:,} to {block_size:,} tokens; the model was not trained on "
            "contexts of that length"
        )
    elif block_size < model.block_size:
        notices.append(f"the context is cropped from {model.block_size:,} to {block_size:,} tokens permanently")
    vocab_size = resolved.tokenizer.vocab_size
    if added_tokens:
        notices.append(f"{added_tokens} added tokens are initialized to the mean of the {vocab_size:,} existing ones")
    changed = {key: overrides[key] for key in CHANGEABLE_SETTINGS if key in overrides}
    vocab_size = max(model.vocabulary, vocab_size + added_tokens)
    return {**model.model_dump(), **changed, "vocab_size": vocab_size}, notices


def _refuse_new_shape(model: ModelConfig, overrides: Mapping[str, object], reference: str) -> None:
    for key, value in overrides.items():
        current = getattr(model, key, None)
        if key not in CHANGEABLE_SETTINGS and value not in (None, current):
            raise ConfigError(
                f"model.{key} is {current} in {reference}, not {value}, and cannot be changed without new weights. "
                f"Remove it, or train a new model without --init-from."
            )


def _tokenizer_spec(resolved: ResolvedModel, requested: str | None, reference: str) -> str:
    """The model's tokenizer, as a name or path for `load_tokenizer`."""
    tokenizer = resolved.tokenizer
    if requested is not None:
        if needs_training(requested) or make_tokenizer(requested).fingerprint != tokenizer.fingerprint:
            raise ConfigError(
                f"{reference} was trained with a different tokenizer ({tokenizer.kind}) than {requested}, so its "
                "embeddings do not match. Remove --tokenizer."
            )
        return requested
    if tokenizer.kind in ("gpt2", "byte") and not tokenizer.added:
        return tokenizer.kind
    folder = resolved.path if resolved.path.is_dir() else resolved.path.parent
    if not has_tokenizer_files(folder) or load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"the tokenizer of {reference} is in that file only. Export the model with --format hf, and start from the "
            "exported folder."
        )
    return str(folder.resolve())


def _train_settings(resolved: ResolvedModel) -> Mapping[str, object]:
    run = RunFolder.of_checkpoint(resolved.path)
    if run is None:
        return FINETUNE_DEFAULTS
    train = run.config().train
    return {name: getattr(train, name) for name in INHERITED_SETTINGS}
