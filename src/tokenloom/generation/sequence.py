"""A sequence of the engine: its window, its progress, and what a step returns for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from tokenloom.errors import UsageError
from tokenloom.generation.logprobs import TokenLogprobs
from tokenloom.generation.penalties import TokenPenalties
from tokenloom.sampling_params import SamplingParams

FinishReason = Literal["stop", "length"]


class Step(NamedTuple):
    """The result of a step for one sequence."""

    row: int
    """The number of the sequence, as returned by `Engine.add`."""
    token: int | None
    """The new token; None if the sequence ended without one, as it does at the end-of-text token."""
    finish_reason: FinishReason | None
    """None while the sequence continues."""
    logprobs: TokenLogprobs | None = None
    """Of the sampled token, also of the end-of-text token; None unless requested."""
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    """One entry for each token of the prompt, None for the first; in the first step of a sequence that requested it."""


@dataclass(eq=False, slots=True)
class TokenSequence:
    """A running or waiting sequence."""

    row: int
    window: list[int]
    remaining: int
    """Tokens still to generate."""
    sampling: SamplingParams
    generator: torch.Generator
    penalties: TokenPenalties | None
    top_logprobs: int | None
    """Most likely tokens to report with each token; None to report no log-probabilities."""
    prompt_logprobs: list[TokenLogprobs | None] | None
    """Those of the prompt that have been computed and not returned; None unless requested."""
    reserved_tokens: int
    """The most tokens that it will have in the cache."""
    filled: int = 0
    """Tokens of the window that are in the cache."""
    generated: int = 0

    @property
    def unfilled(self) -> int:
        """Tokens that have to be in the cache before the next one can be generated: all of the window but the last."""
        return len(self.window) - 1 - self.filled

    def restart(self) -> None:
        """Forget what was computed for the window."""
        self.filled = 0
        if self.prompt_logprobs is not None:
            self.prompt_logprobs = [None]

    def append(self, token: int, logprobs: TokenLogprobs | None) -> Step:
        """Append a generated token."""
        self.remaining -= 1
        self.generated += 1
        self.filled += 1  # the token before it
        self.window.append(token)
        if self.penalties is not None:
            self.penalties.count(token)
        return self.report(token, None if self.remaining else "length", logprobs)

    def report(
        self, token: int | None, finish_reason: FinishReason | None, logprobs: TokenLogprobs | None = None
    ) -> Step:
        """A step of this sequence; the first one returns the log-probabilities of the prompt."""
        prompt, self.prompt_logprobs = self.prompt_logprobs, None
        return Step(self.row, token, finish_reason, logprobs, None if prompt is None else tuple(prompt))

    def fills_like(self, other: TokenSequence) -> bool:
        """Whether the row of the other sequence, and what was computed to fill it, are those of this one."""
        return (
            self.filled == 0
            and self.window == other.window
            and (self.prompt_logprobs is None) == (other.prompt_logprobs is None)
            and (self.prompt_logprobs is None or self.top_logprobs == other.top_logprobs)
        )


def make_generator(seed: int, sample: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of a sample: seeded with `seed` for sample 0, with a hash of both numbers for the others.

    Raises `UsageError` if `seed` is not between 0 and 2^64 - 1.
    """
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed must be from 0 to 2^64 - 1, got {seed}. Try 0.")
    generator = torch.Generator(device)
    if sample == 0:
        return generator.manual_seed(seed)
    return generator.manual_seed(int(np.random.SeedSequence((seed, sample)).generate_state(1, np.uint64)[0]))
