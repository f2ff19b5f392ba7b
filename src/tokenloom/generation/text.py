"""Text generation: the engine with a tokenizer, incremental decoding and stop strings."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.generation.engine import Engine
from tokenloom.generation.logprobs import TokenLogprobs
from tokenloom.generation.sequence import FinishReason
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
    logprobs: list[TokenLogprobs] | None = None
    """Of all generated tokens and of the end-of-text token, if there was one; None unless requested."""


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
    logprobs: TokenLogprobs | None
    """Of the token, also of the end-of-text token; None unless requested."""


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
    logprobs: int | None = None,
    use_cache: bool = True,
    engine: Engine | None = None,
) -> Iterator[TextPiece]:
    """Generate `num_samples` continuations of every prompt; yields a piece for each token as soon as it is sampled.

    An empty prompt stands for the end-of-text token, which starts a new text; of a prompt longer than the context only
    the end is used. A completion ends at the end-of-text token, before the first of the `stop` strings, or after
    `max_new_tokens` tokens, and does not include the prompt. `sampling` defaults to `SamplingParams()`. `logprobs`
    requests log-probabilities with so many of the most likely tokens, 0 to 20. The completions of a prompt depend only
    on the seed and the options, not on the other prompts.

    An `engine` of this model and tokenizer can be shared by several calls, whose pieces may be requested in turn.

    Raises `UsageError` for values out of range; the call itself raises it, before the first piece is requested.
    """
    if isinstance(prompts, str):
        raise UsageError("prompts must be a list of texts, got a single text. Pass [prompt].")
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, got {num_samples}. Try 1.")
    if engine is None:
        engine = Engine(
            model,
            eot_id=tokenizer.eot_id,
            vocab_size=tokenizer.vocab_size,
            prefill_chunk=None,  # nothing runs that would have to wait for a long prompt
            use_cache=use_cache,
        )
    completions: dict[int, _Running] = {}
    for prompt_index, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt) or [tokenizer.eot_id]
        for sample in range(num_samples):
            stream = TextStream(stop)
            row = engine.add(
                ids,
                max_new_tokens=max_new_tokens,
                sampling=sampling or SamplingParams(),
                seed=seed,
                sample=sample,
                top_logprobs=logprobs,
                truncate_prompt=True,
            )
            completions[row] = _Running(prompt_index, sample, stream)
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
    logprobs: int | None = None,
    use_cache: bool = True,
    engine: Engine | None = None,
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
        logprobs=logprobs,
        use_cache=use_cache,
        engine=engine,
    )
    of_completion: dict[tuple[int, int], list[TextPiece]] = defaultdict(list)
    for piece in pieces:
        of_completion[piece.prompt_index, piece.sample_index].append(piece)
    keys = [[(prompt, sample) for sample in range(num_samples)] for prompt in range(len(prompts))]
    return [[_joined(of_completion[key], logprobs is not None) for key in of_prompt] for of_prompt in keys]


class _Running(NamedTuple):
    """A completion in progress."""

    prompt_index: int
    sample_index: int
    stream: TextStream


def _pieces(engine: Engine, tokenizer: Tokenizer, completions: dict[int, _Running]) -> Iterator[TextPiece]:
    for step in engine.run_rows(completions):
        prompt, sample, stream = completions[step.row]
        if stream.stopped:
            continue  # a step that was made for another caller before the row was removed
        text = "" if step.token is None else stream.push(tokenizer.decode_bytes([step.token]))
        reason = step.finish_reason
        if reason is not None:
            text += stream.finish()
        if stream.stopped:
            reason = "stop"
            engine.remove(step.row)
        yield TextPiece(prompt, sample, text, step.token, reason, step.logprobs)


def _joined(pieces: Sequence[TextPiece], has_logprobs: bool) -> TextCompletion:
    reason = pieces[-1].finish_reason
    assert reason is not None, "the last piece ends the completion"
    return TextCompletion(
        "".join(piece.text for piece in pieces),
        [piece.token for piece in pieces if piece.token is not None],
        reason,
        [piece.logprobs for piece in pieces if piece.logprobs is not None] if has_logprobs else None,
    )
