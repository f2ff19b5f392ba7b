"""The choices of a completion: text, log-probabilities and the reason for its end, from the tokens of the engine."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.generation.engine import FinishReason, Step
from tokenloom.generation.logprobs import TokenLogprobs
from tokenloom.generation.text import TextStream

SMALLEST_LOGPROB = -9999.0
"""Written for the logarithm of 0, as in OpenAI's API: JSON has no infinity."""


@dataclass(frozen=True)
class LogprobEntry:
    """A token of a choice, of its prompt or generated, and what the model predicted at its position."""

    token: int
    content: bytes
    logprob: float | None
    """None for the first token of a prompt."""
    top: Sequence[tuple[int, bytes, float]] | None
    """The most likely tokens and this one: (id, bytes, logprob) in descending order."""
    text_offset: int
    """Of the character in the choice's text that contains the first byte of the token."""


class Piece(NamedTuple):
    """What is added to a choice."""

    text: str
    entries: Sequence[LogprobEntry]
    finish_reason: FinishReason | None = None


class CharacterOffsets:
    """The offsets of tokens in a text of which the bytes arrive token by token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._characters = 0

    def push(self, content: bytes) -> int:
        """Add the bytes of a token; the offset of the character that contains the first of them."""
        offset = self._characters
        incomplete, _ = self._decoder.getstate()
        first = self._decoder.decode(content[:1])
        still_incomplete, _ = self._decoder.getstate()
        if incomplete and (len(first) > 1 or (first and still_incomplete)):
            offset += 1  # the byte did not complete the character before it, which became U+FFFD
        self._characters += len(first) + len(self._decoder.decode(content[1:]))
        return offset


class Choice:
    """One choice, built from the steps of its sequence.

    `top` is the number of most likely tokens to list; None for no log-probabilities. With `echo` the prompt is part of
    the text; stop strings are searched in what follows it. A prompt that `is_implicit`, the end-of-text token in place
    of an empty one, has no text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        is_implicit: bool,
        echo: bool,
        top: int | None,
        stop: Sequence[str],
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._prompt_bytes = [b"" if is_implicit else tokenizer.token_bytes[token] for token in prompt]
        self._echo = echo
        self._top = top
        self._stream = TextStream(stop)
        self._offsets = CharacterOffsets()
        self._has_begun = False
        self.is_finished = False
        self.generated = 0
        """Generated tokens, with the end-of-text token."""

    def push(self, step: Step) -> Piece:
        """Add the step of its sequence; it is finished at a stop string also if the sequence is not."""
        text, entries = ("", list[LogprobEntry]()) if self._has_begun else self._begin(step)
        content = b""
        if step.token is not None:
            content = self._tokenizer.token_bytes[step.token]
            text += self._stream.push(content)
        self.generated += step.token is not None or step.finish_reason == "stop"
        if step.logprobs is not None:
            entries.append(self._entry(step.logprobs, self._tokenizer.token_bytes[step.logprobs.token], content))
        reason = step.finish_reason
        if reason is not None:
            text += self._stream.finish()
        if self._stream.stopped:
            reason = "stop"
        self.is_finished = reason is not None
        return Piece(text, entries, reason)

    def _begin(self, step: Step) -> tuple[str, list[LogprobEntry]]:
        """The echoed prompt; a character that it leaves incomplete is completed by the text."""
        self._has_begun = True
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = decoder.decode(b"".join(self._prompt_bytes))
        incomplete, _ = decoder.getstate()
        self._stream.push(incomplete)
        if not self._echo:
            self._offsets.push(incomplete)
            return "", []
        if step.prompt_logprobs is None:
            return text, []
        scored = zip(self._prompt, self._prompt_bytes, step.prompt_logprobs, strict=True)
        return text, [self._prompt_entry(token, content, logprobs) for token, content, logprobs in scored]

    def _prompt_entry(self, token: int, content: bytes, logprobs: TokenLogprobs | None) -> LogprobEntry:
        if logprobs is not None:
            return self._entry(logprobs, self._tokenizer.token_bytes[token], content)
        return LogprobEntry(token, self._tokenizer.token_bytes[token], None, None, self._offsets.push(content))

    def _entry(self, logprobs: TokenLogprobs, content: bytes, text: bytes) -> LogprobEntry:
        """An entry for a token, of which `text` are the bytes that count as text of the choice."""
        top = logprobs.top[: self._top]
        if all(token != logprobs.token for token, _ in top):
            top = (*top, (logprobs.token, logprobs.logprob))
        return LogprobEntry(
            logprobs.token,
            content,
            max(logprobs.logprob, SMALLEST_LOGPROB),
            [(token, self._tokenizer.token_bytes[token], max(logprob, SMALLEST_LOGPROB)) for token, logprob in top],
            self._offsets.push(text),
        )


def token_name(content: bytes) -> str:
    r"""A token as a key of JSON objects: its text, or `bytes:\xe2\x82` if it is no whole characters."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
