"""From logits to a token: a chain of pure functions, each logits -> logits, and a draw at its end.

Every function works on each row of (B, V) by itself. A token that is out has the logit -inf. The order is that of
Hugging Face's `generate`: repetition penalty, temperature, top-k, top-p, min-p. The book takes top-k before the
temperature, which is the same, since dividing by a temperature keeps the order of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenloom.errors import UsageError

# Smaller ones overflow float32 when logits are divided by them; 0 says what they mean.
SMALLEST_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen; raises `UsageError` for a value out of range."""

    temperature: float = 0.8
    """Sharpness of the choice: 0 takes the likeliest token, 1 the model's own probabilities, more is wilder."""
    top_k: int | None = None
    """Choose among this many likeliest tokens only."""
    top_p: float | None = None
    """Choose among the fewest likeliest tokens that together have this probability."""
    min_p: float | None = None
    """Choose among tokens at least this many times as likely as the likeliest one."""
    repetition_penalty: float = 1.0
    """Make tokens that have already been seen less likely by this factor (above 1)."""

    def __post_init__(self) -> None:
        # Written so that NaN, for which every comparison is false, is refused too.
        _refuse_unless(
            self.temperature == 0 or SMALLEST_TEMPERATURE <= self.temperature < math.inf,
            f"temperature must be 0 (always the likeliest token) or at least {SMALLEST_TEMPERATURE:g}, "
            f"got {self.temperature}. Try 0.8.",
        )
        _refuse_unless(
            self.top_k is None or self.top_k >= 1,
            f"top_k must be at least 1, got {self.top_k}. Leave it out to choose among all tokens.",
        )
        _refuse_unless(
            self.top_p is None or 0 < self.top_p <= 1,
            f"top_p must be above 0 and at most 1, got {self.top_p}. Leave it out to choose among all tokens.",
        )
        _refuse_unless(
            self.min_p is None or 0 <= self.min_p <= 1,
            f"min_p must lie between 0 and 1, got {self.min_p}. Leave it out to choose among all tokens.",
        )
        _refuse_unless(
            0 < self.repetition_penalty < math.inf,
            f"repetition_penalty must be above 0, got {self.repetition_penalty}. Use 1 for none.",
        )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


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


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
