"""Bias and penalties: changes to the logits of single tokens, made before the next token is chosen.

As elsewhere, the bias is added first, then the repetition penalty is applied, then those of frequency and presence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tokenloom.errors import UsageError
from tokenloom.sampling_params import SamplingParams

MAX_BIAS = 100.0
# Small enough to stay finite when divided by the smallest temperature.
LARGEST_LOGIT = 1e30


class TokenPenalties:
    """The bias and the penalties of one sequence, with the tokens that they depend on."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: SamplingParams,
        bias: Mapping[int, float],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self._sampling = sampling
        self._bias = torch.zeros(vocab_size, device=device) if bias else None
        if self._bias is not None:
            self._bias[list(bias)] = torch.tensor(list(bias.values()), dtype=torch.float32, device=device)
        self._in_prompt = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self._in_prompt[list(prompt)] = True
        self._counts = torch.zeros(vocab_size, device=device)  # of generated tokens

    @staticmethod
    def needed(sampling: SamplingParams, bias: Mapping[int, float]) -> bool:
        """Whether a sequence has a bias or a penalty."""
        penalties = sampling.repetition_penalty != 1, sampling.frequency_penalty, sampling.presence_penalty
        return bool(bias) or any(penalties)

    def count(self, token: int) -> None:
        """Note a generated token."""
        self._counts[token] += 1

    def apply(self, logits: Tensor) -> Tensor:
        """Logits (V,) of the next token, changed: (V,) float32."""
        logits, sampling = logits.float(), self._sampling
        if self._bias is not None:
            logits = logits + self._bias
        if sampling.repetition_penalty != 1:
            seen = self._in_prompt | (self._counts > 0)
            logits = penalize_repetition(logits, seen, sampling.repetition_penalty)
        if sampling.frequency_penalty or sampling.presence_penalty:
            logits = penalize_frequency(logits, self._counts, sampling.frequency_penalty, sampling.presence_penalty)
        return logits


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of tokens in `seen` by `penalty`, multiply negative ones (Keskar et al., 2019)."""
    penalty = min(max(penalty, 1 / LARGEST_LOGIT), LARGEST_LOGIT)
    penalized = torch.where(logits > 0, logits / penalty, logits * penalty).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
    return torch.where(seen & logits.isfinite(), penalized, logits)


def penalize_frequency(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """Subtract `frequency` for each time that a token was generated, and `presence` if it was, as OpenAI's API does."""
    return logits - frequency * counts - presence * (counts > 0)


def validate_bias(bias: Mapping[int, float], vocab_size: int) -> None:
    """Raise `UsageError` for tokens outside the vocabulary, and for a bias that is not from -100 to 100."""
    for token, value in bias.items():
        if not 0 <= token < vocab_size:
            raise UsageError(
                f"token {token} of logit_bias is outside the vocabulary, 0 to {vocab_size - 1}. "
                "Use ids of the model's tokenizer."
            )
        if not math.fabs(value) <= MAX_BIAS:
            raise UsageError(
                f"the logit_bias of token {token} must be from {-MAX_BIAS:.0f} to {MAX_BIAS:.0f}, got {value}. "
                f"Use {-MAX_BIAS:.0f} to exclude a token."
            )
