"""The two families of models, and how to build one from its configuration."""

from __future__ import annotations

import torch

from tokenloom.config import ModelConfig
from tokenloom.model.gpt2 import GPT2
from tokenloom.model.modern import Modern

Model = GPT2 | Modern

FAMILIES: dict[str, type[GPT2] | type[Modern]] = {"gpt2": GPT2, "modern": Modern}


def build(config: ModelConfig, generator: torch.Generator | None = None) -> Model:
    """A new model of `config.family`, its weights drawn from `generator`."""
    return FAMILIES[config.family](config, generator)
