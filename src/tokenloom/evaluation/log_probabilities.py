"""Log-probabilities from logits: what inspection, the scoring of prompts and generation report is computed here."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS_AT_ONCE = 128
"""Rows of logits to compute at a time: 25 MB in fp32 with the 50,257 tokens of GPT-2."""


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-probabilities in nats, in fp32 and normalized over the whole vocabulary: (…, V) -> (…, V)."""
    return logits.float().log_softmax(dim=-1)


def most_likely(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row (N, V), in descending order, and their tokens: (N, count) each.

    Of equal ones, the token with the lower id is first, which torch's `topk` does not promise.
    """
    # The bits of floats that are not negative have the order of the floats: sorted by nats, then by id.
    nats = log_probs.abs().view(torch.int32).long()
    keys = (nats << 32) + torch.arange(log_probs.shape[-1], device=log_probs.device)
    tokens = keys.topk(count, dim=-1, largest=False).values & 0xFFFFFFFF
    return log_probs.gather(-1, tokens), tokens
