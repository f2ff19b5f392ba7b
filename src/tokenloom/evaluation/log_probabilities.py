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
    values, tokens = log_probs.topk(count, dim=-1)
    if count == 0:
        return values, tokens
    equal = (values[:, 1:] == values[:, :-1]).any(dim=-1)
    equal |= (log_probs >= values[:, -1:]).sum(dim=-1) > count
    rows = equal.nonzero()[:, 0]
    if len(rows):
        # The bits of floats that are not negative have the order of the floats: sorted by nats, then by id.
        nats = log_probs[rows].abs().view(torch.int32).long()
        keys = (nats << 32) + torch.arange(log_probs.shape[-1], device=log_probs.device)
        tokens[rows] = keys.topk(count, dim=-1, largest=False).values & 0xFFFFFFFF
    return values, tokens
