"""Text generation: the engine with a tokenizer, incremental decoding and stop strings."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.generation.engine import Engine, FinishReason
from tokenloom.model.language_model import LanguageModel
from tokenloom.sampling_params import SamplingParams


@dataclass(frozen=True)
class TextCompletion:
    """The text generated after a prompt."""

    text: str
    """Valid Unicode; ends before the stop string, if there was one."""
    token_ids: list[int]
    """All generated tokens, including those of the stop string but not the end-of-text token."""
    finish_reason: FinishReason
    """stop (end-of-text token or stop string) or length (max_new_tokens)."""


class TextPiece(NamedTuple):
    """The text that one token adds to a completion."""

    prompt_index: int
    sample_index: int
    text: str
    """Often empty, while a character is incomplete or the text may be the start of a stop string."""
    token: int | None
    """None if the completion ended at the end-of-text token."""
    finish_reason: FinishReason | None
    """None while the completion continues."""


class TextStream:
    """Decodes the bytes of tokens incrementally, and ends the text before a stop string.

    A character is returned with its last byte; invalid bytes are returned as U+FFFD. The text ends before the stop
    string that is completed first (of several completed at once, the longest). Text that may be the start of a stop
    string is buffered. The concatenated text does not depend on how the bytes are split into pieces.

    Raises `UsageError` for an empty stop string.
    """

    def __init__(self, stop: str | Sequence[str] = ()) -> None:
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self._stop:
            raise UsageError('a stop string is empty (""), which would end every text at its start. Omit it.')
        self.stopped = False
        self._longest = max(map(len, self._stop), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._buffered = ""

    def push(self, piece: bytes) -> str:
        """The text that the next bytes complete; empty after a stop string."""
        return self._advance(self._decoder.decode(piece))

    def finish(self) -> str:
        """The rest of the text, after the last bytes."""
        text = self._advance(self._decoder.decode(b"", final=True))
        text, self._buffered = text + self._buffered, ""
        return text

    def _advance(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._buffered + text
        cut = self._first_stop(text)
        if cut is not None:
            self.stopped, self._buffered = True, ""
            return text[:cut]
        final = len(text) - self._partial_stop(text)
        self._buffered = text[final:]
        return text[:final]

    def _first_stop(self, text: str) -> int | None:
        """Start of the stop string that is completed first."""
        matches = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        return min(matches)[1] if matches else None

    def _partial_stop(self, text: str) -> int:
        """Length of the longest suffix of `text` that is a prefix of a stop string."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 100,
    sampling: SamplingParams | None = None,
    seed: int = 0,
    num_samples: int = 1,
    stop: str | Sequence[str] = (),
    use_cache: bool = True,
) -> Iterator[TextPiece]:
    """Generate `num_samples` continuations of every prompt; yields a piece for each token as soon as it is sampled.

    An empty prompt stands for the end-of-text token, which starts a new text. A completion ends at that token, before
    the first of the `stop` strings, or after `max_new_tokens` tokens, and does not include the prompt. `sampling`
    defaults to `SamplingParams()`. The completions of a prompt depend only on the seed and the options, not on the
    other prompts.

    Raises `UsageError` for values out of range; the call itself raises it, before the first piece is requested.
    """
    if isinstance(prompts, str):
        raise UsageError("prompts must be a list of texts, got a single text. Pass [prompt].")
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}. Try 1.")
    sampling = sampling or SamplingParams()
    engine = Engine(
        model, eot_id=tokenizer.eot_id, vocab_size=tokenizer.vocab_size, prefill_chunk=None, use_cache=use_cache
    )
    completions: dict[int, _Running] = {}
    for prompt_index, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt) or [tokenizer.eot_id]
        for sample in range(num_samples):
            row = engine.add(
                ids, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, sample=sample, truncate_prompt=True
            )
            completions[row] = _Running(prompt_index, sample, TextStream(stop))
    return _pieces(engine, tokenizer, completions)


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 100,
    sampling: SamplingParams | None = None,
    seed: int = 0,
    num_samples: int = 1,
    stop: str | Sequence[str] = (),
    use_cache: bool = True,
) -> list[list[TextCompletion]]:
    """The completions of `stream_text`, `num_samples` for each prompt; see there for the options."""
    pieces = stream_text(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        num_samples=num_samples,
        stop=stop,
        use_cache=use_cache,
    )
    texts: dict[tuple[int, int], str] = defaultdict(str)
    token_ids: dict[tuple[int, int], list[int]] = defaultdict(list)
    reasons: dict[tuple[int, int], FinishReason] = {}
    for prompt, sample, text, token, reason in pieces:
        texts[prompt, sample] += text
        if token is not None:
            token_ids[prompt, sample].append(token)
        if reason is not None:
            reasons[prompt, sample] = reason
    return [
        [TextCompletion(texts[key], token_ids[key], reasons[key]) for key in ((p, s) for s in range(num_samples))]
        for p in range(len(prompts))
    ]


class _Running(NamedTuple):
    """A completion in progress."""

    prompt_index: int
    sample_index: int
    stream: TextStream


def _pieces(engine: Engine, tokenizer: Tokenizer, completions: dict[int, _Running]) -> Iterator[TextPiece]:
    for row, token, reason, *_ in engine.run():
        prompt, sample, stream = completions[row]
        text = "" if token is None else stream.push(tokenizer.decode_bytes([token]))
        if reason is not None:
            text += stream.finish()
        if stream.stopped:
            reason = "stop"
            engine.remove(row)
        yield TextPiece(prompt, sample, text, token, reason)
