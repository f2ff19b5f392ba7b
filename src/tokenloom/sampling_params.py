"""Sampling parameters: how the next token is chosen. Their docstrings are the help texts of `tokenloom generate`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokenloom.errors import UsageError

# Dividing logits by a smaller temperature overflows float32; 0 selects greedy decoding instead.
SMALLEST_TEMPERATURE = 1e-6


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen; raises `UsageError` if a value is out of range."""

    temperature: float = 0.8
    """Sampling temperature; 0 is greedy decoding."""
    top_k: int | None = None
    """Sample from the k most likely tokens only."""
    top_p: float | None = None
    """Sample from the smallest set of tokens whose probabilities add up to p (nucleus sampling)."""
    min_p: float | None = None
    """Sample from tokens at least p times as likely as the most likely one."""
    repetition_penalty: float = 1.0
    """Penalty for tokens that occur in the prompt or the generated text; 1 disables it."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that occur in the generated text, from -2 to 2."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of tokens for each time they occur in the generated text, from -2 to 2."""

    def __post_init__(self) -> None:
        # Every comparison with NaN is false, so NaN is rejected as well.
        _require(
            self.temperature == 0 or SMALLEST_TEMPERATURE <= self.temperature < math.inf,
            f"temperature must be 0 (greedy decoding) or at least {SMALLEST_TEMPERATURE:g}, "
            f"got {self.temperature}. Try 0.8.",
        )
        _require(
            self.top_k is None or self.top_k >= 1,
            f"top_k must be at least 1, got {self.top_k}. Omit it to sample from all tokens.",
        )
        _require(
            self.top_p is None or 0 < self.top_p <= 1,
            f"top_p must be above 0 and at most 1, got {self.top_p}. Omit it to sample from all tokens.",
        )
        _require(
            self.min_p is None or 0 <= self.min_p <= 1,
            f"min_p must be between 0 and 1, got {self.min_p}. Omit it to sample from all tokens.",
        )
        _require(
            0 < self.repetition_penalty < math.inf,
            f"repetition_penalty must be above 0, got {self.repetition_penalty}. Use 1 to disable it.",
        )
        for name in ("presence_penalty", "frequency_penalty"):
            penalty = getattr(self, name)
            _require(-2 <= penalty <= 2, f"{name} must be from -2 to 2, got {penalty}. Use 0 to disable it.")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always chosen."""
        return self.temperature == 0


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
