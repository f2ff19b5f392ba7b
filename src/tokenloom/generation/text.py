"""Text in, text out, over the engine: whole characters as they are certain, and stop strings that never show."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.generation.engine import CachedModel, Engine, FinishReason
from tokenloom.sampling_params import SamplingParams


@dataclass(frozen=True)
class TextCompletion:
    """What was written after a prompt."""

    text: str
    """Valid Unicode, cut before the stop string that ended it."""
    token_ids: list[int]
    """Every token made, those of the stop string included, the end-of-text token not."""
    finish_reason: FinishReason
    """stop (the end-of-text token or a stop string) or length (max_new_tokens)."""


class TextPiece(NamedTuple):
    """What one token added to one completion."""

    prompt_index: int
    sample_index: int
    text: str
    """Text that is certain now; often empty, while a character or a stop string may be on its way."""
    token: int | None
    """The token made; None if the completion ended at the end-of-text token."""
    finish_reason: FinishReason | None
    """None while the completion goes on."""


class TextStream:
    """Turns the bytes of tokens into text as they arrive, giving out only what can no longer change.

    A character comes out when its last byte is in; bytes that cannot become one come out as U+FFFD, once that is
    certain. The text ends before the stop string that is complete first (of several, the longest); what may yet become
    a stop string is held back until it is known. However the bytes are split into pieces, the text is the same.

    Raises `UsageError` for an empty stop string.
    """

    def __init__(self, stop: str | Sequence[str] = ()) -> None:
        self._stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self._stop:
            raise UsageError('a stop string is empty (""), which would end every text at once. Leave it out.')
        self.stopped = False
        self._longest = max(map(len, self._stop), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, piece: bytes) -> str:
        """Take the next bytes; give the text that is certain now. Nothing comes after a stop string."""
        return self._advance(self._decoder.decode(piece))

    def finish(self) -> str:
        """No bytes will follow: give what was held back."""
        text = self._advance(self._decoder.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return text

    def _advance(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        cut = self._first_stop(text)
        if cut is not None:
            self.stopped, self._held = True, ""
            return text[:cut]
        certain = len(text) - self._undecided(text)
        self._held = text[certain:]
        return text[:certain]

    def _first_stop(self, text: str) -> int | None:
        """Where the stop string begins that is complete first."""
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a stop string."""
        for length in range(min(len(text), self._longest - 1), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


def stream_text(
    model: CachedModel,
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
    """Continue every prompt `num_samples` times, giving out a piece for each token as it is made.

    An empty prompt begins a new text, from the end-of-text token. A completion ends at that token, before the first of
    the `stop` strings, or after `max_new_tokens`; the prompt is not repeated. `sampling` is `SamplingParams()` unless
    given. The same seed gives a prompt the same completions, whatever else is asked in the same call.

    Raises `UsageError` for values out of range, at once, before the first piece.
    """
    if isinstance(prompts, str):
        raise UsageError("prompts is a single text, and must be a list of them. Write [prompt].")
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}. Try 1.")
    sampling = sampling or SamplingParams()
    engine = Engine(model, eot_id=tokenizer.eot_id, vocab_size=tokenizer.vocab_size, use_cache=use_cache)
    writers: dict[int, _Writer] = {}
    for prompt_index, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt) or [tokenizer.eot_id]
        for sample in range(num_samples):
            row = engine.add(ids, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, sample=sample)
            writers[row] = _Writer(prompt_index, sample, TextStream(stop))
    return _pieces(engine, tokenizer, writers)


def generate_text(
    model: CachedModel,
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
    """The whole completions of `stream_text`, which explains the options: for each prompt, `num_samples` of them."""
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


class _Writer(NamedTuple):
    prompt_index: int
    sample_index: int
    stream: TextStream


def _pieces(engine: Engine, tokenizer: Tokenizer, writers: dict[int, _Writer]) -> Iterator[TextPiece]:
    for row, token, reason in engine.run():
        prompt, sample, stream = writers[row]
        text = "" if token is None else stream.push(tokenizer.decode_bytes([token]))
        if reason is not None:
            text += stream.finish()
        if stream.stopped:
            reason = "stop"
            engine.remove(row)
        yield TextPiece(prompt, sample, text, token, reason)
