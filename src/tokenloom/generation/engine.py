"""Batched generation of token ids: sequences of any length share a forward pass, and join and leave between steps.

The engine does not tokenize. Every running sequence has a row in one key-value cache (`cache_rows.py`), which holds all
tokens of its window but the last. A step fills rows for sequences that wait, at most `prefill_chunk` tokens, then feeds
the last token of each running row, ids (rows, 1), and samples the next.

The ids of a sequence depend only on its own prompt, sampling parameters, seed and sample number: they are the same
alone and in a batch, in chunks of any size, with and without the cache, up to rounding, since batches may sum floats in
a different order.
"""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from tokenloom.errors import UsageError, WeightsError
from tokenloom.evaluation.loss import evaluating
from tokenloom.generation.batch import Batch
from tokenloom.generation.logprobs import MAX_TOP_LOGPROBS, TokenLogprobs
from tokenloom.generation.penalties import TokenPenalties, validate_bias
from tokenloom.generation.sampling import sample_tokens
from tokenloom.generation.sequence import FinishReason, Step, TokenSequence, make_generator
from tokenloom.generation.token_choice import Sampler, choose_tokens
from tokenloom.model.language_model import LanguageModel
from tokenloom.sampling_params import SamplingParams

PREFILL_CHUNK = 128
"""Tokens of prompts that a step computes at most: other rows wait for them no longer than for a few of their tokens."""


@dataclass(frozen=True)
class Completion:
    """The tokens generated after a prompt, without the end-of-text token."""

    token_ids: list[int]
    finish_reason: FinishReason


class Engine:
    """Generates tokens for many sequences: `add` them at any time, call `step` until `len(engine)` is 0.

    `eot_id` ends a sequence. Ids from `vocab_size`, which only pad the model's vocabulary, are never sampled. At most
    `max_rows` sequences, which will have at most `max_tokens` tokens in the cache, run at once; others wait in the
    order in which they were added. A step computes at most `prefill_chunk` tokens of prompts, twice as many if no
    sequence runs yet; with None, all tokens of those that start.

    The window of a sequence is its last tokens, at most `block_size`. When it is full, its `slide` oldest tokens are
    dropped and the cache is filled again, since all positions have changed. `slide=1`, as in the book and nanoGPT,
    gives the longest context, but computes a full window for every token; the default, a quarter of the window,
    computes one every block_size / 4 tokens. `use_cache=False` computes the window for every token; windows and ids
    are the same.

    `sampler` chooses the next tokens of all rows.

    Not thread-safe. Raises `UsageError` for options out of range.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        eot_id: int | None = None,
        vocab_size: int | None = None,
        max_rows: int = 32,
        max_tokens: int | None = None,
        prefill_chunk: int | None = PREFILL_CHUNK,
        slide: int | None = None,
        use_cache: bool = True,
        sampler: Sampler = sample_tokens,
    ) -> None:
        block_size, model_vocabulary = model.config.block_size, model.config.vocabulary
        if vocab_size is not None and not 0 < vocab_size <= model_vocabulary:
            raise UsageError(
                f"the tokenizer has {vocab_size:,} tokens, but the model's vocabulary has {model_vocabulary:,}. "
                "Use the tokenizer that the model was trained with."
            )
        if slide is not None and not 1 <= slide <= block_size:
            raise UsageError(f"slide must be from 1 to the model's block_size {block_size}, got {slide}. Try 1.")
        for name, value in (("max_rows", max_rows), ("max_tokens", max_tokens), ("prefill_chunk", prefill_chunk)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}. Omit it to use the default.")
        self.block_size = block_size
        self._model = model
        self._modules = list(model.modules())  # traversing the modules takes too long to repeat it for every token
        self._device = next(model.parameters()).device
        self._slide = slide or max(1, block_size // 4)
        self._vocab_size = vocab_size or model_vocabulary
        self._eot_id = eot_id
        self._max_rows = max_rows
        self._max_tokens = max_tokens or sys.maxsize
        self._prefill_chunk = prefill_chunk or sys.maxsize
        self._sampler = sampler
        self._added = 0
        self._waiting: deque[TokenSequence] = deque()
        self._batch = Batch(model, max_rows, self._vocab_size, use_cache=use_cache)
        self._kept: dict[int, list[Step]] = defaultdict(list)  # for `run_rows`

    def __len__(self) -> int:
        """Number of running and waiting sequences, and of those that ended in a step that failed."""
        return len(self._waiting) + len(self._batch.sequences) + len(self._batch.ended)

    @property
    def waiting(self) -> int:
        """Number of sequences that wait for a row or for tokens in the cache."""
        return len(self._waiting)

    @property
    def free_rows(self) -> int:
        """Number of sequences that could start."""
        return self._max_rows - len(self._batch.sequences)

    @property
    def reserved_tokens(self) -> int:
        """The most tokens that the sequences that have started will have in the cache."""
        return sum(sequence.reserved_tokens for sequence in self._batch.sequences)

    def add(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingParams,
        seed: int,
        sample: int = 0,
        top_logprobs: int | None = None,
        prompt_logprobs: bool = False,
        logit_bias: Mapping[int, float] | None = None,
        truncate_prompt: bool = False,
    ) -> int:
        """Add a sequence, which starts in the next step if there is a free row; returns its number.

        A prompt and its new tokens need no sliding window if they have at most `block_size` + 1 tokens. A prompt that
        does not fit is refused; with `truncate_prompt` only its last `block_size` tokens are used. `sample` numbers the
        samples of a prompt: sample 0 uses a generator seeded with `seed`, the others generators seeded with both.

        `top_logprobs` requests the log-probability of every sampled token with so many of the most likely tokens, 0 for
        none; `prompt_logprobs` also that of every token of the prompt, which must not be truncated then.
        `logit_bias` is added to the logits of tokens, from -100 to 100.

        Raises `UsageError` for an empty or too long prompt, ids outside the vocabulary, and numbers out of range.
        """
        ids = [int(token) for token in prompt]  # may be numpy or torch integers
        bias = dict(logit_bias or {})
        self._validate(ids, max_new_tokens, top_logprobs, bias)
        window = ids[-self.block_size :] if truncate_prompt and not prompt_logprobs else ids
        if len(window) > self.block_size + (max_new_tokens == 0):
            raise UsageError(
                f"the prompt has {len(ids):,} tokens, but the model's block_size is {self.block_size:,}. Shorten it."
            )
        reserved = min(len(window) - 1 + max_new_tokens, self.block_size)
        if reserved > self._max_tokens:
            raise UsageError(
                f"the prompt and its new tokens need {reserved:,} tokens in the cache, but max_tokens is "
                f"{self._max_tokens:,}. Use fewer tokens, or a larger max_tokens."
            )
        penalties = None
        if TokenPenalties.needed(sampling, bias):
            penalties = TokenPenalties(ids, sampling, bias, self._vocab_size, self._device)
        row, self._added = self._added, self._added + 1
        self._waiting.append(
            TokenSequence(
                row,
                window,
                max_new_tokens,
                sampling,
                make_generator(seed, sample, self._device),
                penalties,
                top_logprobs,
                [None] if prompt_logprobs else None,
                reserved,
            )
        )
        return row

    def remove(self, row: int) -> None:
        """Stop a sequence; does nothing if it has already ended."""
        self._kept.pop(row, None)
        self._waiting = deque(sequence for sequence in self._waiting if sequence.row != row)
        self._batch.remove(row)

    def run(self) -> Iterator[Step]:
        """Step until every sequence has ended."""
        while len(self):
            yield from self.step()

    def run_rows(self, rows: Collection[int]) -> Iterator[Step]:
        """Step until these sequences have ended. Steps of the others are kept for calls with their rows.

        In this way several callers can use one engine in turn, of which none may call `step` or `run`.
        """
        while True:
            kept = [step for row in list(self._kept) if row in rows for step in self._kept.pop(row)]
            if not kept:
                if not any(sequence.row in rows for sequence in chain(self._batch.sequences, self._waiting)):
                    return
                for step in self.step():
                    self._kept[step.row].append(step)
            yield from kept

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Generate one token for every running sequence. The model is in eval mode meanwhile.

        Raises `WeightsError` if logits are NaN or infinite, as a `SequenceError` if it is known of which sequence: then
        the others continue with the next step, if that one is removed.
        """
        self._admit()
        try:
            with evaluating(self._modules):
                # If no row runs, none waits for the chunk, and a larger one is computed a few percent faster.
                self._batch.fill(self._prefill_chunk * (1 if self._batch.running else 2))
                generated = self._generate() if self._batch.running else []
        except WeightsError:
            self._batch.refill()
            raise
        steps, self._batch.ended = self._batch.ended + generated, []
        return steps

    def _generate(self) -> list[Step]:
        """A token for each running sequence."""
        batch, running = self._batch, list(self._batch.running)
        logits = batch.next_logits()
        tokens, logprobs = choose_tokens(logits, running, self._vocab_size, self._sampler)
        steps = [self._append(*new) for new in zip(running, tokens, logprobs, strict=True)]
        for index in reversed(range(len(steps))):  # the row that moves to the place of another was looked at
            if steps[index].finish_reason is not None:
                batch.leave(index)
            elif running[index].filled == 0:
                batch.leave(index)
                batch.start(running[index])
        return steps

    def _validate(self, prompt: list[int], max_new_tokens: int, top: int | None, bias: Mapping[int, float]) -> None:
        if not prompt:
            raise UsageError("the prompt has no tokens. To generate a new text, use the end-of-text token as prompt.")
        if min(prompt) < 0 or max(prompt) >= self._vocab_size:
            invalid = next(token for token in prompt if not 0 <= token < self._vocab_size)
            raise UsageError(
                f"token {invalid} of the prompt is outside the vocabulary, 0 to {self._vocab_size - 1}. "
                "Encode the prompt with the tokenizer that the model was trained with."
            )
        if max_new_tokens < 0:
            raise UsageError(f"max_new_tokens must be 0 or more, got {max_new_tokens}. Try 100.")
        if top is not None and not 0 <= top <= MAX_TOP_LOGPROBS:
            raise UsageError(f"logprobs must be from 0 to {MAX_TOP_LOGPROBS}, got {top}. Try 5.")
        validate_bias(bias, self._vocab_size)

    def _admit(self) -> None:
        """Let waiting sequences start, in order, while rows and tokens suffice; those with nothing to do end."""
        free_tokens = self._max_tokens - self.reserved_tokens if self._waiting else 0
        while self._waiting:
            sequence = self._waiting[0]
            if sequence.remaining == 0 and sequence.prompt_logprobs is None:
                self._batch.ended.append(sequence.report(None, "length"))
            elif self.free_rows and sequence.reserved_tokens <= free_tokens:
                free_tokens -= sequence.reserved_tokens
                self._batch.start(sequence)
            else:
                break
            self._waiting.popleft()

    def _append(self, sequence: TokenSequence, token: int, logprobs: TokenLogprobs | None) -> Step:
        """Append a token to its sequence, and slide a full window."""
        if token == self._eot_id:
            return sequence.report(None, "stop", logprobs)
        step = sequence.append(token, logprobs)
        if len(sequence.window) > self.block_size:
            del sequence.window[: self._slide]
            sequence.filled = 0
        return step


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingParams,
    seed: int,
    num_samples: int = 1,
    eot_id: int | None = None,
    vocab_size: int | None = None,
    max_rows: int = 32,
    slide: int | None = None,
    use_cache: bool = True,
) -> Iterator[Step]:
    """Generate `num_samples` continuations of every prompt; yields each token as soon as it is sampled.

    Only the last `block_size` tokens of a prompt are used. Sample s of prompt p is row `p * num_samples + s`. For the
    options see `Engine` and `Engine.add`; their `UsageError` is raised by the call itself, before the first token is
    requested.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}. Try 1.")
    engine = Engine(
        model,
        eot_id=eot_id,
        vocab_size=vocab_size,
        max_rows=max_rows,
        prefill_chunk=None,
        slide=slide,
        use_cache=use_cache,
    )
    for prompt in prompts:
        for sample in range(num_samples):
            engine.add(
                prompt,
                max_new_tokens=max_new_tokens,
                sampling=sampling,
                seed=seed,
                sample=sample,
                truncate_prompt=True,
            )
    return engine.run()


def collect(steps: Iterable[Step]) -> list[Completion]:
    """The completions of `generate`, in the order of their rows."""
    token_ids: dict[int, list[int]] = defaultdict(list)
    reasons: dict[int, FinishReason] = {}
    for step in steps:
        if step.token is not None:
            token_ids[step.row].append(step.token)
        if step.finish_reason is not None:
            reasons[step.row] = step.finish_reason
    return [Completion(token_ids[row], reasons[row]) for row in sorted(reasons)]
