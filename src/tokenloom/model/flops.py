"""Exact counts of a model's parameters and of its floating-point operations, from its configuration alone."""

from __future__ import annotations

import torch

from tokenloom.config import ModelConfig
from tokenloom.model import build


def count_parameters(config: ModelConfig) -> int:
    """Weights in the model, a tied head counted once."""
    with torch.device("meta"):
        model = build(config)
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(config: ModelConfig, T: int | None = None) -> int:
    """Floating-point operations of one forward pass over T tokens (one full context if None).

    Matrix products only, 2 for each multiply-add, as `torch.utils.flop_counter` counts them: attention counts the
    whole T × T square, although its causal half is masked.
    """
    T = T or config.block_size
    C, L = config.n_embd, config.n_layer
    kv = config.kv_heads * config.head_dim
    weights = L * (2 * C * C + 2 * C * kv + 8 * C * C) + C * config.vocabulary
    attention = L * 2 * T * C
    return 2 * T * (weights + attention)


def training_flops_per_token(config: ModelConfig) -> float:
    """Forward plus backward, which costs twice the forward, at full context (PaLM, arXiv:2204.02311, appendix B)."""
    return 3 * forward_flops(config) / config.block_size
