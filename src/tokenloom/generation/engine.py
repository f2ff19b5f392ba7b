"""Batched generation of token ids: sequences of any length share a forward pass, and join and leave between steps.

The engine does not tokenize. Every running sequence has a row in one key-value cache (`cache_rows.py`), which holds all
tokens of its window but the last. A step feeds the last token of each row, ids (rows, 1), and samples the next.

The ids of a sequence depend only on its own prompt, sampling parameters, seed and sample number: they are the same
alone and in a batch, with and without the cache, up to rounding, since batches may sum floats in a different order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tokenloom.errors import UsageError, WeightsError
from tokenloom.evaluation.loss import evaluating
from tokenloom.generation.cache_rows import CacheRows
from tokenloom.generation.sampling import has_finite_maximum, sample_tokens
from tokenloom.model.language_model import LanguageModel
from tokenloom.sampling_params import SamplingParams

FinishReason = Literal["stop", "length"]


class Sampler(Protocol):
    """Chooses the next token of each row: logits (B, V) -> (B,). The default is `sample_tokens`."""

    def __call__(
        self, logits: Tensor, sampling: SamplingParams, generators: Sequence[torch.Generator], seen: Tensor | None, /
    ) -> Tensor: ...


class Step(NamedTuple):
    """The result of a step for one sequence."""

    row: int
    """The number of the sequence, as returned by `Engine.add`."""
    token: int | None
    """The new token; None if the sequence ended without one, as it does at the end-of-text token."""
    finish_reason: FinishReason | None
    """None while the sequence continues."""


@dataclass(frozen=True)
class Completion:
    """The tokens generated after a prompt, without the end-of-text token."""

    token_ids: list[int]
    finish_reason: FinishReason


class Engine:
    """Generates tokens for many sequences: `add` them at any time, call `step` until `len(engine)` is 0.

    `eot_id` ends a sequence. Ids from `vocab_size`, which only pad the model's vocabulary, are never sampled. At most
    `max_rows` sequences run at once, which bounds the cache; others wait.

    The window of a sequence is its last tokens, at most `block_size`. When it is full, its `slide` oldest tokens are
    dropped and the cache is filled again, since all positions have changed. `slide=1`, as in the book and nanoGPT,
    gives the longest context, but computes a full window for every token; the default, a quarter of the window,
    computes one every block_size / 4 tokens. `use_cache=False` computes the window for every token; windows and ids
    are the same.

    `sampler` chooses the next tokens of all rows that have the same `SamplingParams`.

    Not thread-safe. Raises `UsageError` for options out of range.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        eot_id: int | None = None,
        vocab_size: int | None = None,
        max_rows: int = 32,
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
        if max_rows < 1:
            raise UsageError(f"max_rows must be at least 1, got {max_rows}. Try 32.")
        self._model = model
        self._modules = list(model.modules())  # traversing the modules takes too long to repeat it for every token
        self._device = next(model.parameters()).device
        self._block_size = block_size
        self._slide = slide or max(1, block_size // 4)
        self._vocab_size = vocab_size or model_vocabulary
        self._eot_id = eot_id
        self._max_rows = max_rows
        self._sampler = sampler
        self._added = 0
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []  # in the order of their rows in the cache
        self._cache = CacheRows(model, max_rows) if use_cache else None

    def __len__(self) -> int:
        """Number of running and waiting sequences."""
        return len(self._waiting) + len(self._running)

    def add(
        self, prompt: Sequence[int], *, max_new_tokens: int, sampling: SamplingParams, seed: int, sample: int = 0
    ) -> int:
        """Add a sequence, which starts in the next step if there is a free row; returns its number.

        Only the last `block_size` tokens of a prompt are used. `sample` numbers the samples of a prompt: sample 0 uses
        a generator seeded with `seed`, the others generators seeded with both numbers. Raises `UsageError` for an
        empty prompt, ids outside the vocabulary, and numbers out of range.
        """
        ids = [int(token) for token in prompt]  # may be numpy or torch integers
        self._validate(ids, max_new_tokens)
        seen = None
        if sampling.repetition_penalty != 1:
            seen = torch.zeros(self._vocab_size, dtype=torch.bool, device=self._device)
            seen[ids] = True
        row, self._added = self._added, self._added + 1
        generator = make_generator(seed, sample, self._device)
        self._waiting.append(_Sequence(row, ids[-self._block_size :], max_new_tokens, sampling, generator, seen))
        return row

    def remove(self, row: int) -> None:
        """Stop a sequence; does nothing if it has already ended."""
        self._waiting = deque(sequence for sequence in self._waiting if sequence.row != row)
        for index, sequence in enumerate(self._running):
            if sequence.row == row:
                self._leave(index)
                break

    def run(self) -> Iterator[Step]:
        """Step until every sequence has ended."""
        while len(self):
            yield from self.step()

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """Generate one token for every running sequence. The model is in eval mode meanwhile.

        Raises `WeightsError` if logits are NaN or infinite.
        """
        ended = self._start_waiting()
        if not self._running:
            return ended
        with evaluating(self._modules):
            logits = self._next_logits()
        tokens: list[int] = self._sample(logits).tolist()  # pyright: ignore  # torch annotates it as a plain list
        steps = [self._append(sequence, token) for sequence, token in zip(self._running, tokens, strict=True)]
        for index in reversed(range(len(steps))):  # the last first: a row that moves has been looked at
            if steps[index].finish_reason is not None:
                self._leave(index)
        return ended + steps

    def _validate(self, prompt: list[int], max_new_tokens: int) -> None:
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

    def _start_waiting(self) -> list[Step]:
        """Start waiting sequences while there are free rows; those without tokens to generate end at once."""
        ended: list[Step] = []
        while self._waiting and len(self._running) < self._max_rows:
            sequence = self._waiting.popleft()
            if sequence.remaining == 0:
                ended.append(Step(sequence.row, None, "length"))
            else:
                self._running.append(sequence)
        return ended

    def _leave(self, index: int) -> None:
        """End a running sequence; the last one takes its place."""
        if self._cache is not None:
            self._cache.remove(index, last=len(self._running) - 1)
        last = self._running.pop()
        if index < len(self._running):
            self._running[index] = last

    def _next_logits(self) -> Tensor:
        """Logits (rows, vocab_size) of the token after each window."""
        logits = self._uncached_logits() if self._cache is None else self._cached_logits(self._cache)
        logits = logits[:, : self._vocab_size]
        self._check(logits)
        return logits

    def _check(self, logits: Tensor) -> None:
        """Refuse logits from which no token can be sampled; on a GPU, `multinomial` would end the process."""
        valid = has_finite_maximum(logits)
        if not valid.all():
            row = int(valid.int().argmin())
            sequence, kind = self._running[row], "NaN" if logits[row].isnan().any() else "infinite"
            self._erase_cache()
            raise WeightsError(
                f"the logits of new token {sequence.generated + 1:,} are {kind}: the model's weights are corrupt, or "
                "its training diverged. Use an earlier checkpoint."
            )

    def _erase_cache(self) -> None:
        """Fill the cache again in the next step, if there is one, without the numbers that were not finite."""
        for row, sequence in enumerate(self._running):
            sequence.needs_prefill = True
            if self._cache is not None:
                self._cache.erase(row)

    def _cached_logits(self, cache: CacheRows) -> Tensor:
        filled: dict[tuple[int, ...], int] = {}  # samples of one prompt share a prefill
        for row, sequence in enumerate(self._running):
            if not sequence.needs_prefill:
                continue
            tokens = tuple(sequence.window[:-1])
            cache.clear(row)
            if tokens in filled:
                cache.copy(filled[tokens], row)
            elif tokens:
                cache.append(row, tokens)
                filled[tokens] = row
            sequence.needs_prefill = False
        return cache.next_logits([sequence.window[-1] for sequence in self._running])

    def _uncached_logits(self) -> Tensor:
        lengths = [len(sequence.window) for sequence in self._running]
        ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
        for row, sequence in enumerate(self._running):
            ids[row, : lengths[row]] = sequence.window  # padded on the right, where causal attention does not reach
        logits = self._model(torch.as_tensor(ids, device=self._device))  # (rows, T, V)
        return logits[range(len(lengths)), [length - 1 for length in lengths]]

    def _sample(self, logits: Tensor) -> Tensor:
        """Tokens (rows,) for logits (rows, V); rows with the same parameters are sampled together."""
        rows_by_params: dict[SamplingParams, list[int]] = defaultdict(list)
        for row, sequence in enumerate(self._running):
            rows_by_params[sequence.sampling].append(row)
        if len(rows_by_params) == 1:
            return self._sample_group(logits, self._running)
        tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        for rows in rows_by_params.values():
            tokens[rows] = self._sample_group(logits[rows], [self._running[row] for row in rows])
        return tokens

    def _sample_group(self, logits: Tensor, sequences: list[_Sequence]) -> Tensor:
        seen = [sequence.seen for sequence in sequences if sequence.seen is not None]
        generators = [sequence.generator for sequence in sequences]
        return self._sampler(logits, sequences[0].sampling, generators, torch.stack(seen) if seen else None)

    def _append(self, sequence: _Sequence, token: int) -> Step:
        """Append a token to its sequence, and slide a full window."""
        if token == self._eot_id:
            return Step(sequence.row, None, "stop")
        sequence.remaining -= 1
        sequence.generated += 1
        if sequence.seen is not None:
            sequence.seen[token] = True
        sequence.window.append(token)
        if len(sequence.window) > self._block_size:
            del sequence.window[: self._slide]
            sequence.needs_prefill = True
        return Step(sequence.row, token, None if sequence.remaining else "length")


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

    Sample s of prompt p is row `p * num_samples + s`. For the options see `Engine` and `Engine.add`; their `UsageError`
    is raised by the call itself, before the first token is requested.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}. Try 1.")
    engine = Engine(model, eot_id=eot_id, vocab_size=vocab_size, max_rows=max_rows, slide=slide, use_cache=use_cache)
    for prompt in prompts:
        for sample in range(num_samples):
            engine.add(prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, sample=sample)
    return engine.run()


def collect(steps: Iterable[Step]) -> list[Completion]:
    """The completions of `generate`, in the order of their rows."""
    token_ids: dict[int, list[int]] = defaultdict(list)
    reasons: dict[int, FinishReason] = {}
    for row, token, reason in steps:
        if token is not None:
            token_ids[row].append(token)
        if reason is not None:
            reasons[row] = reason
    return [Completion(token_ids[row], reasons[row]) for row in sorted(reasons)]


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


@dataclass(eq=False, slots=True)
class _Sequence:
    """A running or waiting sequence."""

    row: int
    window: list[int]
    remaining: int
    """Tokens still to generate."""
    sampling: SamplingParams
    generator: torch.Generator
    seen: Tensor | None
    """Tokens (V,) that a repetition penalty applies to."""
    generated: int = 0
    needs_prefill: bool = True
    """Whether the window is new or has slid, so that its row of the cache has to be filled."""
