"""The two model families, and `build`, which creates a model from its configuration."""

from __future__ import annotations

import torch

from tokenloom.config import ModelConfig
from tokenloom.model.gpt2 import GPT2
from tokenloom.model.language_model import GPT
from tokenloom.model.modern import Modern

FAMILIES: dict[str, type[GPT2] | type[Modern]] = {"gpt2": GPT2, "modern": Modern}

__all__ = ["FAMILIES", "GPT", "GPT2", "Modern", "build"]


def build(config: ModelConfig, generator: torch.Generator | None = None) -> GPT:
    """A new model of `config.family`, its weights initialized from `generator`."""
    return FAMILIES[config.family](config, generator)
