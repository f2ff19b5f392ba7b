"""Numbers of parameters and of floating-point operations, computed from the configuration alone."""

from __future__ import annotations

import torch

from tokenloom.config import ModelConfig
from tokenloom.model import build


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters; a tied output head is counted once."""
    with torch.device("meta"):
        model = build(config)
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(config: ModelConfig, tokens: int | None = None) -> int:
    """Floating-point operations of a forward pass over one sequence of `tokens` tokens (None: `block_size`).

    Matrix products only, two operations for each multiply-add, as in `torch.utils.flop_counter`. Attention counts the
    full T × T square, although half of it is masked.
    """
    T = tokens or config.block_size
    C, L = config.n_embd, config.n_layer
    q, kv = config.n_head * config.head_size, config.kv_heads * config.head_size
    mlp_matrices = 2 if config.family == "gpt2" else 3
    weights = L * C * (2 * q + 2 * kv + mlp_matrices * config.mlp_width) + C * config.vocabulary
    attention = L * 2 * T * q
    return 2 * T * (weights + attention)


def training_flops_per_token(config: ModelConfig) -> float:
    """FLOPs of forward and backward at full context; backward is twice forward (PaLM, arXiv:2204.02311, appendix B)."""
    return 3 * forward_flops(config) / config.block_size
