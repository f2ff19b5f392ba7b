"""Configurations that earlier versions of Tokenloom saved with a run or a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tokenloom.config import Config, ModelConfig
from tokenloom.errors import CheckpointError

# Settings of the modern family of 0.1, whose architecture was another one. Configurations of GPT-2 had them as well.
_REMOVED_MODEL_SETTINGS = ("softcap", "bigram_buckets", "value_embeddings")


def saved_config(settings: Mapping[str, object]) -> Config:
    """The configuration of a run, from its sections; raises `CheckpointError` for a modern model of version 0.1."""
    model = settings.get("model")
    if isinstance(model, Mapping):
        settings = {**settings, "model": _current_model_settings(cast("Mapping[str, object]", model))}
    return Config.of(settings)


def saved_model_config(settings: object) -> ModelConfig:
    """The configuration of a model; raises like `saved_config`."""
    return saved_config({"model": settings}).model


def _current_model_settings(settings: Mapping[str, object]) -> Mapping[str, object]:
    removed = [name for name in _REMOVED_MODEL_SETTINGS if name in settings]
    if removed and settings.get("family", "modern") == "modern":
        raise CheckpointError(
            "this model has the modern architecture of tokenloom 0.1, which only that version reads. "
            "Use tokenloom 0.1, or train the model again."
        )
    return {name: value for name, value in settings.items() if name not in removed}
