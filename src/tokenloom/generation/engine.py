"""Ids in, ids out: sequences that a model continues together, joining and leaving between steps.

The engine knows nothing about text. Every running sequence has a row in one key-value cache, which holds all of its
window but the last token. A step feeds each row its last token and chooses the next, so that rows of any length, new
ones and old ones, move together in one forward pass over ids (rows, 1).

What a sequence becomes depends on its own prompt, sampling, seed and sample number, never on its neighbours: alone or
in a batch, cached or not, the ids are the same (up to the rounding of floating-point sums, which batches may order
differently).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tokenloom.config import ModelConfig
from tokenloom.errors import UsageError, WeightsError
from tokenloom.evaluation.loss import evaluating
from tokenloom.generation.sampling import sample_tokens
from tokenloom.model.attention import KVCache
from tokenloom.sampling_params import SamplingParams

FinishReason = Literal["stop", "length"]


class CachedModel(Protocol):
    """What the engine asks of a model; every model of `tokenloom.model` has it."""

    config: ModelConfig
    __call__: Any  # (ids (B, T), cache=None) -> logits (B, T, V)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor: ...
    def new_cache(self, batch_size: int) -> KVCache: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...


class Sampler(Protocol):
    """Chooses the next token of each row: logits (B, V) -> (B,); `sample_tokens` is one."""

    def __call__(
        self, logits: Tensor, sampling: SamplingParams, generators: Sequence[torch.Generator], seen: Tensor | None, /
    ) -> Tensor: ...


class Step(NamedTuple):
    """What one step did to one sequence."""

    row: int
    """The number that `Engine.add` gave the sequence."""
    token: int | None
    """The new token; None if the sequence ended without one (at the end-of-text token, which is not given out)."""
    finish_reason: FinishReason | None
    """None while the sequence goes on."""


@dataclass(frozen=True)
class Completion:
    """All that was written after one prompt; the end-of-text token is not part of it."""

    token_ids: list[int]
    finish_reason: FinishReason


class Engine:
    """Continues sequences together. `add` them at any time, call `step` until `len(engine)` is 0. For one thread.

    `eot_id` ends a sequence. Ids from `vocab_size` on (padding of the vocabulary, which no tokenizer knows) are never
    chosen. At most `max_rows` sequences run at once, to bound the cache; the others wait for a place.

    A window is what the model sees of a sequence: at most its `block_size` last tokens. When it is full, its `slide`
    oldest tokens are dropped and the rest is read anew, since every position has changed. `slide=1` is what the book
    and nanoGPT do: the longest possible context, for the price of a whole window for each token. The default drops a
    quarter, so that only one token in block_size / 4 costs as much. With `use_cache=False` every token costs a whole
    window; the windows, and so the ids, are the same.

    `sampler` chooses the tokens of the rows that have the same `SamplingParams`.

    Raises `UsageError` for options out of range.
    """

    def __init__(
        self,
        model: CachedModel,
        *,
        eot_id: int | None = None,
        vocab_size: int | None = None,
        max_rows: int = 32,
        slide: int | None = None,
        use_cache: bool = True,
        sampler: Sampler = sample_tokens,
    ) -> None:
        block_size, known = model.config.block_size, model.config.vocabulary
        if vocab_size is not None and not 0 < vocab_size <= known:
            raise UsageError(
                f"the tokenizer has {vocab_size:,} tokens, but the model knows {known:,}. "
                "Use the tokenizer that the model was trained with."
            )
        if slide is not None and not 1 <= slide <= block_size:
            raise UsageError(f"slide must be from 1 to the model's block_size {block_size}, got {slide}. Try 1.")
        if max_rows < 1:
            raise UsageError(f"max_rows must be at least 1, got {max_rows}. Try 32.")
        self._model = model
        self._modules = list(model.modules())  # Walking the tree anew would cost time at every token.
        self._device = next(model.parameters()).device
        self._block_size = block_size
        self._slide = slide or max(1, block_size // 4)
        self._vocab_size = vocab_size or known
        self._eot_id = eot_id
        self._max_rows = max_rows
        self._use_cache = use_cache
        self._sampler = sampler
        self._added = 0
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._seated: list[_Sequence] = []  # whose row of the cache is whose, as of the last step
        self._cache: KVCache | None = None

    def __len__(self) -> int:
        """Sequences that run or wait."""
        return len(self._waiting) + len(self._running)

    def add(
        self, prompt: Sequence[int], *, max_new_tokens: int, sampling: SamplingParams, seed: int, sample: int = 0
    ) -> int:
        """Take in a sequence, to join at the next step; gives its number.

        Of a prompt longer than the model's block_size its end is used. `sample` tells apart the samples of one prompt
        under one seed: sample 0 draws from a generator seeded with `seed` itself, the others from ones derived from
        both. Raises `UsageError` for an empty prompt, unknown ids, or numbers out of range.
        """
        ids = [int(token) for token in prompt]  # numpy's and torch's numbers too
        self._check(ids, max_new_tokens)
        seen = None
        if sampling.repetition_penalty != 1:
            seen = torch.zeros(self._vocab_size, dtype=torch.bool, device=self._device)
            seen[ids] = True
        row, self._added = self._added, self._added + 1
        generator = make_generator(seed, sample, self._device)
        self._waiting.append(_Sequence(row, ids[-self._block_size :], max_new_tokens, sampling, generator, seen))
        return row

    def remove(self, row: int) -> None:
        """Drop a sequence that need not go on; one that has ended already is no mistake."""
        self._waiting = deque(sequence for sequence in self._waiting if sequence.row != row)
        self._running = [sequence for sequence in self._running if sequence.row != row]

    def run(self) -> Iterator[Step]:
        """Step until every sequence has ended."""
        while len(self):
            yield from self.step()

    @torch.inference_mode()
    def step(self) -> list[Step]:
        """One more token for every running sequence. The model is in eval mode meanwhile, and then as it was.

        Raises `WeightsError` if the model's logits are not numbers.
        """
        ended = self._admit()
        if not self._running:
            return ended
        with evaluating(self._modules):
            logits = self._next_logits()
        steps = [
            self._take(sequence, token)
            for sequence, token in zip(self._running, self._sample(logits).tolist(), strict=True)
        ]
        self._running = [
            sequence for sequence, step in zip(self._running, steps, strict=True) if step.finish_reason is None
        ]
        return ended + steps

    def _check(self, prompt: list[int], max_new_tokens: int) -> None:
        if not prompt:
            raise UsageError("the prompt has no tokens. Start from the end-of-text token to begin a new text.")
        if min(prompt) < 0 or max(prompt) >= self._vocab_size:
            wrong = next(token for token in prompt if not 0 <= token < self._vocab_size)
            raise UsageError(
                f"the prompt has the token {wrong}, but the model knows 0 to {self._vocab_size - 1}. "
                "Encode it with the tokenizer that the model was trained with."
            )
        if max_new_tokens < 0:
            raise UsageError(f"max_new_tokens must be 0 or more, got {max_new_tokens}. Try 100.")

    def _admit(self) -> list[Step]:
        """Let waiting sequences run while there is room; those that want no tokens end here."""
        ended = []
        while self._waiting and len(self._running) < self._max_rows:
            sequence = self._waiting.popleft()
            if sequence.remaining == 0:
                ended.append(Step(sequence.row, None, "length"))
            else:
                self._running.append(sequence)
        return ended

    def _next_logits(self) -> Tensor:
        """Logits (rows, vocab_size) of the token after each window."""
        anew = [row for row, sequence in enumerate(self._running) if sequence.reads_anew]
        logits = (self._cached_logits(anew) if self._use_cache else self._whole_logits())[:, : self._vocab_size]
        # Checked when a window is read, not at every token: it makes the host wait for the device.
        if anew and logits[anew].isnan().any():
            raise WeightsError(
                "the model's logits are not numbers (NaN): its weights are damaged, or its training diverged. "
                "Use an earlier checkpoint."
            )
        for sequence in self._running:
            sequence.reads_anew = False
        return logits

    def _cached_logits(self, anew: list[int]) -> Tensor:
        cache = self._cache = self._seat()
        shared = defaultdict(list)  # samples of one prompt read it once
        for row in anew:
            shared[tuple(self._running[row].window[:-1])].append(row)
        for tokens, rows in shared.items():
            read = self._read(tokens)
            for row in rows:
                cache.copy_row(row, read)
        last = torch.tensor([sequence.window[-1:] for sequence in self._running], device=self._device)  # (rows, 1)
        return self._model(last, cache)[:, -1]

    def _whole_logits(self) -> Tensor:
        lengths = [len(sequence.window) for sequence in self._running]
        ids = np.zeros((len(lengths), max(lengths)), dtype=np.int64)
        for row, sequence in enumerate(self._running):
            ids[row, : lengths[row]] = sequence.window  # Padding is on the right, where no token looks.
        logits = self._model(torch.from_numpy(ids).to(self._device))  # (rows, T, V)
        return logits[range(len(lengths)), [length - 1 for length in lengths]]

    def _seat(self) -> KVCache:
        """A cache with a row for each running sequence, in order; a newcomer's row is empty."""
        if self._cache is not None and self._running == self._seated:
            return self._cache
        places = {sequence.row: place for place, sequence in enumerate(self._seated)}
        self._seated = list(self._running)
        known = [places.get(sequence.row) for sequence in self._running]
        stayed = [place for place in known if place is not None]
        if self._cache is not None and len(stayed) == len(known):
            return self._cache.select(stayed)
        grown = self._model.new_cache(len(known))
        for row, place in enumerate(known):
            if self._cache is not None and place is not None:
                grown.copy_row(row, self._cache, place)
        return grown

    def _read(self, tokens: Sequence[int]) -> KVCache:
        """A cache of one row that has seen these tokens."""
        cache = self._model.new_cache(1)
        if tokens:
            self._model.hidden(torch.tensor([tokens], device=self._device), cache)  # (1, T); no logits needed
        return cache

    def _sample(self, logits: Tensor) -> Tensor:
        """Tokens (rows,) for logits (rows, V): rows that are sampled alike are handled at once."""
        alike: dict[SamplingParams, list[int]] = defaultdict(list)
        for row, sequence in enumerate(self._running):
            alike[sequence.sampling].append(row)
        if len(alike) == 1:
            return self._sample_alike(logits, self._running)
        chosen = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        for rows in alike.values():
            chosen[rows] = self._sample_alike(logits[rows], [self._running[row] for row in rows])
        return chosen

    def _sample_alike(self, logits: Tensor, sequences: list[_Sequence]) -> Tensor:
        seen = [sequence.seen for sequence in sequences if sequence.seen is not None]
        generators = [sequence.generator for sequence in sequences]
        return self._sampler(logits, sequences[0].sampling, generators, torch.stack(seen) if seen else None)

    def _take(self, sequence: _Sequence, token: int) -> Step:
        """Append a token to its sequence, sliding a full window."""
        if token == self._eot_id:
            return Step(sequence.row, None, "stop")
        sequence.remaining -= 1
        if sequence.seen is not None:
            sequence.seen[token] = True
        sequence.window.append(token)
        if len(sequence.window) > self._block_size:
            del sequence.window[: self._slide]
            sequence.reads_anew = True
        return Step(sequence.row, token, None if sequence.remaining else "length")


def generate(
    model: CachedModel,
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
    """Continue every prompt `num_samples` times, giving out each token as it is made.

    Sample s of prompt p is row `p * num_samples + s`. The options are those of `Engine` and `Engine.add`, which say
    what they mean and raise `UsageError` at once, before the first token.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}. Try 1.")
    engine = Engine(model, eot_id=eot_id, vocab_size=vocab_size, max_rows=max_rows, slide=slide, use_cache=use_cache)
    for prompt in prompts:
        for sample in range(num_samples):
            engine.add(prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, sample=sample)
    return engine.run()


def collect(steps: Iterable[Step]) -> list[Completion]:
    """The whole completions of `generate`, by row."""
    token_ids: dict[int, list[int]] = defaultdict(list)
    reasons: dict[int, FinishReason] = {}
    for row, token, reason in steps:
        if token is not None:
            token_ids[row].append(token)
        if reason is not None:
            reasons[row] = reason
    return [Completion(token_ids[row], reasons[row]) for row in sorted(reasons)]


def make_generator(seed: int, sample: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The randomness of one sample: `torch.Generator().manual_seed(seed)` for sample 0, independent ones after it.

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
    """One text being continued."""

    row: int
    window: list[int]
    remaining: int
    sampling: SamplingParams
    generator: torch.Generator
    seen: Tensor | None
    """Tokens (V,) that a repetition penalty applies to."""
    reads_anew: bool = True
    """The window is new, or has slid: its row of the cache is not of this window yet."""
