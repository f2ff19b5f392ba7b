"""Completions: from a request to tickets of the engine thread, and from its steps to choices."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import TokenizerError
from tokenloom.generation.engine import Step
from tokenloom.sampling_params import SamplingParams
from tokenloom.serving.choices import Choice, Piece
from tokenloom.serving.completion_reply import Usage
from tokenloom.serving.completion_request import CompletionRequest, Prompts
from tokenloom.serving.errors import RequestError
from tokenloom.serving.models import AcquiredModel
from tokenloom.serving.services import Services
from tokenloom.serving.tickets import SequenceOptions, Ticket

T = TypeVar("T")
Pieces = Sequence[tuple[int, Piece]]
"""What steps add to the choices, by their indexes."""

DEFAULT_MAX_TOKENS = 16
# Work that takes longer than a millisecond or two is done in a thread, to start which takes a tenth of that.
_MANY_CHARACTERS = 1000
_MANY_LOGPROBS = 200
_SEED_BITS = 48  # a number of JavaScript holds 53 bits exactly


class Completion:
    """A completion in progress, which has to be closed."""

    def __init__(self, services: Services, acquired: AcquiredModel, ticket: Ticket, choices: Sequence[Choice]) -> None:
        self._services = services
        self._acquired = acquired
        self._ticket = ticket
        self._choices = choices
        self._unfinished = len(choices)
        self._started = time.perf_counter()
        self.model = acquired.ref.name
        self.seed = ticket.options.seed

    @classmethod
    async def start(cls, request: CompletionRequest, services: Services) -> Completion:
        """Load the model, encode the prompts and add the sequences; raises `RequestError` for all that is invalid."""
        acquired = await services.acquire(request.model)
        try:
            tokenizer, context = acquired.loaded.tokenizer, acquired.loaded.model.config.block_size
            encode = partial(encode_prompts, request.prompt, tokenizer)
            is_long = sum(map(len, request.prompt)) > _MANY_CHARACTERS
            prompts = await services.in_text_thread(encode) if is_long else encode()
            ticket = Ticket(
                acquired.loaded,
                prompts,
                request.n or 1,
                SequenceOptions(
                    max_new_tokens=_max_new_tokens(request, prompts, context),
                    sampling=_sampling(request),
                    seed=secrets.randbits(_SEED_BITS) if request.seed is None else request.seed % 2**64,
                    top_logprobs=request.logprobs,
                    prompt_logprobs=bool(request.echo) and request.logprobs is not None,
                    logit_bias=_logit_bias(request.logit_bias or {}, tokenizer.vocab_size),
                ),
            )
            services.engine.submit(ticket)
        except BaseException:
            acquired.release()
            raise
        choices = [
            Choice(
                tokenizer,
                ids,
                is_implicit=prompt == "",
                echo=bool(request.echo),
                top=request.logprobs,
                stop=request.stop or (),
            )
            for prompt, ids in zip(request.prompt, prompts, strict=True)
            for _ in range(ticket.n)
        ]
        services.metrics.prompt_tokens.inc(sum(map(len, prompts)))
        return cls(services, acquired, ticket, choices)

    async def results(self, render: Callable[[Pieces], T]) -> AsyncIterator[T]:
        """What `render` makes of the pieces that have arrived, until all choices are finished.

        It is called in another thread if there are many log-probabilities. Raises `RequestError` if the engine fails.
        """
        is_first = True
        async for steps in self._ticket.results(self._services.turns):
            if is_first:
                self._services.metrics.first_token_seconds.observe(time.perf_counter() - self._started)
                is_first = False
            entries = sum((step.logprobs is not None) + len(step.prompt_logprobs or ()) for step in steps)
            yield await self.in_thread_if_long(entries, partial(self._render, steps, render))
            if not self._unfinished:
                return

    async def in_thread_if_long(self, entries: int, work: Callable[[], T]) -> T:
        """The result of `work`, called in another thread if it has many log-probabilities, in `entries` for tokens."""
        logprobs = entries * (1 + (self._ticket.options.top_logprobs or 0))
        return await self._services.in_text_thread(work) if logprobs > _MANY_LOGPROBS else work()

    def _render(self, steps: Sequence[Step], render: Callable[[Pieces], T]) -> T:
        return render(self._push(steps))

    def _push(self, steps: Sequence[Step]) -> Pieces:
        """Add steps to their choices."""
        pieces: list[tuple[int, Piece]] = []
        for step in steps:
            choice = self._choices[step.row]
            if choice.is_finished:
                continue
            pieces.append((step.row, choice.push(step)))
            if choice.is_finished:
                self._unfinished -= 1
                if step.finish_reason is None:  # at a stop string, of which the engine does not know
                    self._services.engine.stop_sequence(self._ticket, step.row)
        return pieces

    @property
    def usage(self) -> Usage:
        """The tokens so far. A prompt counts once, also with several choices."""
        prompt = sum(map(len, self._ticket.prompts))
        completion = sum(choice.generated for choice in self._choices)
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    def close(self) -> None:
        """Stop what is left, and let the model go."""
        self._services.engine.release(self._ticket)
        self._acquired.release()
        self._services.metrics.completion_tokens.inc(sum(choice.generated for choice in self._choices))
        self._services.metrics.completion_seconds.observe(time.perf_counter() - self._started)


def encode_prompts(prompts: Prompts, tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of every prompt, of which an empty one is the end-of-text token; raises `RequestError`."""
    encoded: list[list[int]] = []
    for number, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            try:
                encoded.append(tokenizer.encode(prompt) or [tokenizer.eot_id])
            except TokenizerError as error:
                raise RequestError(str(error), param="prompt") from None
            continue
        invalid = next((token for token in prompt if token >= tokenizer.vocab_size), None)
        if invalid is not None:
            raise RequestError(
                f"token {invalid} of prompt {number} is outside the vocabulary, 0 to {tokenizer.vocab_size - 1}. "
                "Encode the prompt with the tokenizer of the model: POST /tokenize",
                param="prompt",
            )
        encoded.append(list(prompt))
    return encoded


def _max_new_tokens(request: CompletionRequest, prompts: Sequence[Sequence[int]], context: int) -> int:
    """The requested number, or a default that fits. The last token needs no place in the context, hence one more."""
    longest, limit = max(map(len, prompts)), context + 1
    fitting = min(DEFAULT_MAX_TOKENS, limit - longest)
    wanted = max(1, fitting) if request.max_tokens is None else request.max_tokens
    if longest + wanted > limit:
        raise RequestError(
            f"the maximum context length of the model is {context} tokens, of which prompt and completion can have one "
            f"more, {limit}; requested were {longest + wanted} tokens ({longest} in the prompt, {wanted} for the "
            "completion). Shorten the prompt, or reduce max_tokens.",
            param="max_tokens" if longest < limit else "prompt",
            code="context_length_exceeded",
        )
    return wanted


def _sampling(request: CompletionRequest) -> SamplingParams:
    return SamplingParams(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_k=request.top_k if request.top_k is not None and request.top_k > 0 else None,
        top_p=request.top_p,
        min_p=request.min_p,
        repetition_penalty=1.0 if request.repetition_penalty is None else request.repetition_penalty,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
    )


def _logit_bias(bias: Mapping[str, float], vocab_size: int) -> dict[int, float]:
    tokens: dict[int, float] = {}
    for key, value in bias.items():
        token = int(key) if key.isdecimal() and len(key) <= len(str(vocab_size)) else vocab_size
        if token >= vocab_size:
            raise RequestError(
                f"{key!a:.40} in logit_bias is not a token id, 0 to {vocab_size - 1}. Use ids of the tokenizer: "
                "POST /tokenize",
                param="logit_bias",
            )
        tokens[token] = value
    return tokens
