"""From logits to the next token: filters that map logits (B, V) to logits (B, V), then a random choice.

Every function treats each row by itself. Excluded tokens have the logit -inf. Rows without a finite maximum, which have
no probabilities, are refused before a token is chosen. To add a filter: a field of
`SamplingParams`, its function, and a row of `FILTERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenloom.errors import WeightsError
from tokenloom.sampling_params import SamplingParams

FLOAT32 = torch.finfo(torch.float32)  # larger and smaller numbers become inf and 0


def sample_tokens(
    logits: Tensor,
    sampling: SamplingParams,
    generators: Sequence[torch.Generator] | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """The next token of each row: (B, V) -> (B,) int64.

    `generators` holds one generator for each row; without them torch's default generator is used. `seen` (B, V) is
    true for the tokens that a repetition penalty applies to, and is required with one. Raises `WeightsError` for logits
    that are NaN, +inf, or all -inf.
    """
    if sampling.is_greedy:  # no filter but the repetition penalty changes which token is the most likely
        return _filtered(logits, sampling, seen).argmax(dim=-1)
    return sample_from_probabilities(probabilities(logits, sampling, seen), generators)


def probabilities(logits: Tensor, sampling: SamplingParams, seen: Tensor | None = None) -> Tensor:
    """The probabilities from which `sample_tokens` samples: (B, V) -> (B, V) float32, rows summing to 1.

    Raises `WeightsError` as `sample_tokens` does.
    """
    logits = _filtered(logits, sampling, seen)
    if sampling.is_greedy:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    return logits.softmax(dim=-1)


def sample_from_probabilities(probs: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
    """A token sampled from each row of probabilities, with the row's own generator: (B, V) -> (B,)."""
    if generators is None:
        return torch.multinomial(probs, 1).squeeze(-1)
    rows = zip(probs, generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def has_finite_maximum(logits: Tensor) -> Tensor:
    """Whether each row of logits (B, V) has probabilities: none is NaN or +inf, and not all are -inf; (B,)."""
    return logits.amax(dim=-1).isfinite()


def penalize_repetition(logits: Tensor, seen: Tensor | None, penalty: float) -> Tensor:
    """Divide positive logits of tokens in `seen` (B, V) by `penalty`, multiply negative ones (Keskar et al., 2019)."""
    assert seen is not None, "a repetition penalty needs the tokens seen so far"
    penalty = min(max(penalty, FLOAT32.tiny), FLOAT32.max)
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits by the temperature."""
    return logits / min(temperature, FLOAT32.max)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exclude all but the k largest logits of each row; logits equal to the smallest of them are kept too."""
    smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Exclude all but the smallest set of most likely tokens with total probability p (Holtzman et al., 2020)."""
    if p >= 1:
        return logits  # rounding of the sums below could exclude the last token
    descending, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = descending.softmax(dim=-1)
    preceding = probs.cumsum(dim=-1) - probs  # total probability of the more likely tokens
    excluded = preceding >= p
    excluded[..., 0] = False  # also if p is 0 in float32
    return torch.empty_like(logits).scatter_(-1, order, descending.masked_fill(excluded, -math.inf))


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Exclude tokens less than p times as likely as the most likely one of the row (Nguyen et al., 2024)."""
    if p <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(p), -math.inf)


@dataclass(frozen=True)
class Filter:
    """A filter and the sampling parameter that controls it."""

    param: str
    """Field of `SamplingParams`."""
    off: float | None
    """Value of the parameter that disables the filter."""
    apply: Callable[[Tensor, float, Tensor | None], Tensor]
    """Logits (B, V), the parameter's value and the tokens `seen` (B, V) -> logits (B, V)."""


# In the order of Hugging Face's `generate`. The book applies top-k before the temperature, with the same result:
# dividing by a temperature keeps the order of the logits.
FILTERS = (
    Filter("repetition_penalty", 1, lambda logits, penalty, seen: penalize_repetition(logits, seen, penalty)),
    Filter("temperature", 0, lambda logits, temperature, _: apply_temperature(logits, temperature)),
    Filter("top_k", None, lambda logits, k, _: keep_top_k(logits, int(k))),
    Filter("top_p", None, lambda logits, p, _: keep_top_p(logits, p)),
    Filter("min_p", None, lambda logits, p, _: keep_min_p(logits, p)),
)


def _filtered(logits: Tensor, sampling: SamplingParams, seen: Tensor | None) -> Tensor:
    logits = logits.float()
    for filter in FILTERS:
        value = getattr(sampling, filter.param)
        if value != filter.off:
            logits = filter.apply(logits, value, seen)
    if not has_finite_maximum(logits).all():
        raise WeightsError(
            "the logits of the next token are not finite: the model's weights are corrupt, its training diverged, or "
            "the sampling parameters are too extreme. Use an earlier checkpoint, or the default sampling parameters."
        )
    return logits
