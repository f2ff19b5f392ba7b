"""From logits to a token: a chain of pure functions, each logits -> logits, and a draw at its end.

Every function works on each row of (B, V) by itself. A token that is out has the logit -inf. The order is that of
Hugging Face's `generate`: repetition penalty, temperature, top-k, top-p, min-p. The book takes top-k before the
temperature, which is the same, since dividing by a temperature keeps the order of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenloom.sampling_params import SamplingParams


def sample_tokens(
    logits: Tensor,
    sampling: SamplingParams,
    generators: Sequence[torch.Generator] | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """The next token of each row: (B, V) -> (B,) int64.

    `generators` holds one for each row; without them the default generator draws. `seen` (B, V) is true for the
    tokens that a repetition penalty applies to, and is needed only for one.
    """
    if sampling.is_greedy:
        return _penalized(logits.float(), sampling, seen).argmax(dim=-1)
    return sample_from_probabilities(probabilities(logits, sampling, seen), generators)


def probabilities(logits: Tensor, sampling: SamplingParams, seen: Tensor | None = None) -> Tensor:
    """What each token's chance of being chosen is: (B, V) -> (B, V) float32, rows summing to 1."""
    logits = _penalized(logits.float(), sampling, seen)
    if sampling.is_greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = apply_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(dim=-1)


def sample_from_probabilities(chances: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
    """One token of each row with these chances: (B, V) -> (B,); a row's own generator decides, not its neighbours."""
    if generators is None:
        return torch.multinomial(chances, 1).squeeze(-1)
    rows = zip(chances, generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide the logits of tokens in `seen` (B, V) by `penalty`, or multiply negative ones (Keskar et al., 2019)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Leave the `k` largest logits of each row; ties with the smallest of them stay too."""
    smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Leave the fewest likeliest tokens of each row whose probabilities add up to `p` (Holtzman et al., 2020)."""
    if p >= 1:
        return logits  # All of them; rounding in the sum below could drop the last.
    descending, order = logits.sort(dim=-1, descending=True, stable=True)
    chances = descending.softmax(dim=-1)
    likelier = chances.cumsum(dim=-1) - chances  # What the tokens before each one have together.
    return torch.empty_like(logits).scatter_(-1, order, descending.masked_fill(likelier >= p, -math.inf))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Leave the tokens of each row that are at least `p` times as likely as its likeliest (Nguyen et al., 2024)."""
    if p <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


def _penalized(logits: Tensor, sampling: SamplingParams, seen: Tensor | None) -> Tensor:
    if sampling.repetition_penalty == 1:
        return logits
    assert seen is not None, "a repetition penalty needs the tokens seen so far"
    return penalize_repetition(logits, seen, sampling.repetition_penalty)
