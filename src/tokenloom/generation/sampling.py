"""From logits to the next token: filters that map logits (B, V) to logits (B, V), then a random choice.

Every function treats each row by itself, with the row's own parameters. Excluded tokens have the logit -inf. Rows
without a finite maximum, which have no probabilities, are refused before a token is chosen. To add a filter: a field of
`SamplingParams`, its function, and a row of `FILTERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenloom.errors import WeightsError
from tokenloom.sampling_params import SamplingParams

FLOAT32 = torch.finfo(torch.float32)  # larger and smaller numbers become inf and 0
TOP_P_CANDIDATES = 64
"""Most likely tokens among which the set of `keep_top_p` is searched first."""

PerRow = float | Sequence[float]
"""The parameter of a filter: one for all rows, or one for each."""


def sample_tokens(
    logits: Tensor,
    sampling: SamplingParams | Sequence[SamplingParams],
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """The next token of each row: (B, V) -> (B,) int64.

    `sampling` holds the parameters of each row, or those of all; of them, the penalties are not applied here but by
    `TokenPenalties`. `generators` holds one generator for each row; without them torch's default generator is used.
    Raises `WeightsError` for logits that are NaN, +inf, or all -inf.
    """
    params = _of_rows(sampling, logits)
    sampled = [row for row, param in enumerate(params) if not param.is_greedy]
    if len(sampled) == len(params):
        return sample_from_probabilities(probabilities(logits, params), generators)
    _refuse_without_probabilities(logits)
    tokens = _argmax(logits)  # no filter changes which token is the most likely
    if sampled:
        chosen = None if generators is None else [generators[row] for row in sampled]
        probs = probabilities(logits[sampled], [params[row] for row in sampled])
        tokens[sampled] = sample_from_probabilities(probs, chosen)
    return tokens


def probabilities(logits: Tensor, sampling: SamplingParams | Sequence[SamplingParams]) -> Tensor:
    """The probabilities from which `sample_tokens` samples: (B, V) -> (B, V) float32, rows summing to 1.

    Raises `WeightsError` as `sample_tokens` does.
    """
    params = _of_rows(sampling, logits)
    logits = logits.float()
    for filter in FILTERS:
        values: list[float | None] = [None if param.is_greedy else getattr(param, filter.param) for param in params]
        logits = _filtered(logits, filter, values)
    _refuse_without_probabilities(logits)
    probs = logits.softmax(dim=-1)
    if any(param.is_greedy for param in params):
        greedy = torch.tensor([param.is_greedy for param in params], device=logits.device)[:, None]
        one_hot = torch.zeros_like(probs).scatter_(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
        probs = torch.where(greedy, one_hot, probs)
    return probs


def sample_from_probabilities(probs: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
    """A token sampled from each row of probabilities, with the row's own generator: (B, V) -> (B,)."""
    if generators is None:
        return torch.multinomial(probs, 1).squeeze(-1)
    rows = zip(probs, generators, strict=True)
    return torch.cat([torch.multinomial(row, 1, generator=generator) for row, generator in rows])


def has_finite_maximum(logits: Tensor) -> Tensor:
    """Whether each row of logits (B, V) has probabilities: none is NaN or +inf, and not all are -inf; (B,)."""
    if _is_faster_in_numpy(logits):
        return torch.as_tensor(np.isfinite(logits.numpy(force=True).max(axis=-1)))
    return logits.amax(dim=-1).isfinite()


def _argmax(logits: Tensor) -> Tensor:
    """The first of the most likely tokens of each row: (B, V) -> (B,)."""
    if _is_faster_in_numpy(logits):
        return torch.as_tensor(logits.numpy(force=True).argmax(axis=-1))
    return logits.argmax(dim=-1)


def _is_faster_in_numpy(logits: Tensor) -> bool:
    """Whether numpy can read the logits: its argmax is ten times as fast as torch's, whose `isfinite` is four calls."""
    return logits.device.type == "cpu" and logits.dtype == torch.float32


def apply_temperature(logits: Tensor, temperature: PerRow) -> Tensor:
    """Divide the logits by the temperature."""
    return logits / _column(temperature, logits)


def keep_top_k(logits: Tensor, k: PerRow) -> Tensor:
    """Exclude all but the k largest logits of each row; logits equal to the smallest of them are kept too."""
    counts = _column(k, logits).clamp(max=logits.shape[-1]).long()
    largest = logits.topk(int(counts.max()), dim=-1).values  # (B, largest k)
    return logits.masked_fill(logits < largest.gather(-1, counts - 1), -math.inf)


def keep_top_p(logits: Tensor, p: PerRow) -> Tensor:
    """Exclude all but the smallest set of most likely tokens with total probability p (Holtzman et al., 2020).

    Of equal logits, those of lower ids are in the set first.
    """
    needed = _column(p, logits)
    needed = torch.where(needed >= 1, math.inf, needed)  # all tokens, even if fewer add up to 1 by rounding
    smallest, room = _end_of_top_p(logits, logits.softmax(dim=-1), needed, TOP_P_CANDIDATES)
    excluded = logits < smallest
    equal = logits == smallest
    if bool((equal.sum(dim=-1, keepdim=True) > room).any()):
        excluded |= equal & (equal.cumsum(dim=-1) > room)
    return logits.masked_fill(excluded, -math.inf)


def keep_min_p(logits: Tensor, p: PerRow) -> Tensor:
    """Exclude tokens less than p times as likely as the most likely one of the row (Nguyen et al., 2024)."""
    rows = p if isinstance(p, Sequence) else [p] * len(logits)
    logs = [math.log(value) if value > 0 else -math.inf for value in rows]
    smallest = logits.amax(dim=-1, keepdim=True) + _column(logs, logits)
    return logits.masked_fill(logits < smallest, -math.inf)


@dataclass(frozen=True)
class Filter:
    """A filter and the sampling parameter that controls it."""

    param: str
    """Field of `SamplingParams`."""
    off: float | None
    """Value of the parameter that disables the filter, besides None."""
    apply: Callable[[Tensor, Sequence[float]], Tensor]
    """Logits (B, V) and the parameter of each row -> logits (B, V)."""


# In the order of Hugging Face's `generate`. The book applies top-k before the temperature, with the same result:
# dividing by a temperature keeps the order of the logits.
FILTERS = (
    Filter("temperature", 1, apply_temperature),
    Filter("top_k", None, keep_top_k),
    Filter("top_p", 1, keep_top_p),
    Filter("min_p", 0, keep_min_p),
)


def _end_of_top_p(logits: Tensor, probs: Tensor, needed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest logit in the set of `keep_top_p`, and how many tokens with this logit are in it: (B, 1) each.

    The set is searched among the `count` most likely tokens. Only rows that need more are searched again, because a
    sort of the whole vocabulary takes longer than all else that sampling does.
    """
    V = logits.shape[-1]
    largest, tokens = logits.topk(min(count, V), dim=-1)  # (B, count)
    candidates = probs.gather(-1, tokens)
    cumulative = candidates.cumsum(dim=-1)
    inside = cumulative - candidates < needed  # the more likely tokens are not enough
    size = inside.sum(dim=-1, keepdim=True).clamp(min=1)  # p may be 0 in float32
    smallest = largest.gather(-1, size - 1)
    room = size - (largest > smallest).sum(dim=-1, keepdim=True)
    if count < V:
        rows = (cumulative[:, -1] < needed[:, 0]).nonzero()[:, 0]
        if len(rows):
            smallest[rows], room[rows] = _end_of_top_p(logits[rows], probs[rows], needed[rows], 32 * count)
    return smallest, room


def _filtered(logits: Tensor, filter: Filter, values: Sequence[float | None]) -> Tensor:
    """The logits after a filter, which is applied to the rows whose parameter does not disable it."""
    used = {row: value for row, value in enumerate(values) if value is not None and value != filter.off}
    if len(used) == len(values):
        return filter.apply(logits, list(used.values()))
    if not used:
        return logits
    rows = torch.tensor(list(used), device=logits.device)
    return logits.index_copy(0, rows, filter.apply(logits[rows], list(used.values())))


def _of_rows(sampling: SamplingParams | Sequence[SamplingParams], logits: Tensor) -> Sequence[SamplingParams]:
    return [sampling] * len(logits) if isinstance(sampling, SamplingParams) else sampling


def _column(values: PerRow, logits: Tensor) -> Tensor:
    """A parameter as a column (B, 1) float32."""
    rows = values if isinstance(values, Sequence) else [values] * len(logits)
    column = torch.tensor([min(value, FLOAT32.max) for value in rows], dtype=torch.float32, device=logits.device)
    return column[:, None]


def _refuse_without_probabilities(logits: Tensor) -> None:
    if not has_finite_maximum(logits).all():
        raise WeightsError(
            "the logits of the next token are not finite: the model's weights are corrupt, its training diverged, or "
            "the sampling parameters are too extreme. Use an earlier checkpoint, or the default sampling parameters."
        )
