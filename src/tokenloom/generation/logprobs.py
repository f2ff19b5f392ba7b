"""Log-probabilities of sampled tokens and of prompts: those of the model, before temperature, penalties and bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tokenloom.errors import WeightsError
from tokenloom.evaluation.log_probabilities import ROWS_AT_ONCE, log_probabilities, most_likely

MAX_TOP_LOGPROBS = 20
"""Most tokens that can be listed at a position, as in OpenAI's API."""


class TokenLogprobs(NamedTuple):
    """A token's log-probability, and those of the most likely tokens at its position.

    In fp32 and normalized over the model's vocabulary: the number that `evaluate` and `inspect` give, for any
    sampling parameters.
    """

    token: int
    """The id, also of the end-of-text token."""
    logprob: float
    """In nats."""
    top: tuple[tuple[int, float], ...]
    """The most likely tokens, (id, logprob) in descending order; of equal ones the lower id is first."""


def token_logprobs(logits: Tensor, tokens: Sequence[int], top: Sequence[int], vocab_size: int) -> list[TokenLogprobs]:
    """The log-probabilities of a token of each row of logits (N, V), with the `top` most likely ones below vocab_size.

    They are the same for any number of rows and any `top`. Raises `WeightsError` for logits that are not finite.
    """
    log_probs = log_probabilities(logits)
    chosen = log_probs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].cpu().numpy()
    if np.isnan(chosen).any():
        raise WeightsError(
            "log-probabilities are NaN: the model's weights are corrupt, or its training diverged. "
            "Use an earlier checkpoint."
        )
    values, ids = most_likely(log_probs[:, :vocab_size], min(max(top), vocab_size))
    rows = zip(tokens, chosen, ids.cpu().numpy(), values.cpu().numpy(), top, strict=True)
    return [
        TokenLogprobs(
            token, float(logprob), tuple(zip(row_ids[:count].tolist(), row_values[:count].tolist(), strict=True))
        )
        for token, logprob, row_ids, row_values, count in rows
    ]


def score_tokens(
    hidden: Tensor, head: Callable[[Tensor], Tensor], tokens: Sequence[int], top: int, vocab_size: int
) -> list[TokenLogprobs]:
    """The log-probabilities of the tokens that follow hidden states (T, C), a few positions at a time."""
    scored: list[TokenLogprobs] = []
    for start in range(0, len(tokens), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        scored += token_logprobs(head(hidden[rows]), tokens[rows], [top] * len(tokens[rows]), vocab_size)
    return scored
