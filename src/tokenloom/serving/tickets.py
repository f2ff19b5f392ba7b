"""Tickets: requests in the engine thread, and what arrives from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tokenloom.generation.engine import Step
from tokenloom.sampling_params import SamplingParams
from tokenloom.serving.errors import RequestError
from tokenloom.serving.turns import Turns
from tokenloom.weights.load import LoadedModel

Outcome = list[Step] | RequestError
"""Steps of a ticket, or the error that ends it."""


@dataclass(frozen=True)
class SequenceOptions:
    """What all sequences of a request have in common."""

    max_new_tokens: int
    sampling: SamplingParams
    seed: int
    top_logprobs: int | None
    prompt_logprobs: bool
    logit_bias: Mapping[int, float]


@dataclass(eq=False)
class Ticket:
    """A request in the engine thread: `n` sequences for each prompt, numbered prompt by prompt.

    `results` gives the steps of its sequences, whose rows are those numbers.
    """

    loaded: LoadedModel
    prompts: Sequence[Sequence[int]]
    n: int
    options: SequenceOptions
    _steps: list[Step] = field(default_factory=list[Step])
    _error: RequestError | None = None
    _continue_reader: Callable[[], None] | None = None
    """Wakes the task that waits for results; None if none does."""

    @property
    def sequences(self) -> int:
        return len(self.prompts) * self.n

    @property
    def tokens(self) -> int:
        """The most tokens that its sequences can have together."""
        return self.n * sum(len(prompt) + self.options.max_new_tokens for prompt in self.prompts)

    async def results(self, turns: Turns) -> AsyncIterator[list[Step]]:
        """The steps that have arrived, at each turn all of them at once; a busy server so has less to write.

        Raises `RequestError` after the last one if the sequences cannot continue.
        """
        while True:
            # One future for both the results and the turn: the task is woken once for each time that it writes.
            turn = asyncio.get_running_loop().create_future()
            if self._steps or self._error is not None:
                turns.give(turn)
            else:
                self._continue_reader = partial(turns.give, turn)
            await turn
            steps, self._steps = self._steps, []
            if steps:
                yield steps
            if self._error is not None:
                raise self._error

    def deliver(self, outcome: Outcome) -> None:
        """Add steps, or the error that ends them; called in the event loop."""
        if isinstance(outcome, RequestError):
            self._error = outcome
        else:
            self._steps += outcome
        if self._continue_reader is not None:
            self._continue_reader()
            self._continue_reader = None
