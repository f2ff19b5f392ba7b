"""The replies to requests for completions, as OpenAI's API defines them, with Tokenloom's additions.

The classes describe them for /openapi.json. The functions write them as plain objects, since an event for each token
would take several times as long with a check of its fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tokenloom.generation.engine import FinishReason
from tokenloom.serving.choices import LogprobEntry, Piece, token_name
from tokenloom.serving.reply_schema import Reply


class TopToken(Reply):
    """A token that the model could have generated."""

    id: int
    bytes: list[int]
    logprob: float


class Logprobs(Reply):
    """Log-probabilities in nats: raw, whatever the sampling parameters; -9999 stands for the logarithm of 0."""

    tokens: list[str]
    """Texts of the tokens; one that is not whole characters reads `bytes:\\xe2\\x82`."""
    token_logprobs: list[float | None]
    """Null for the first token of a prompt."""
    top_logprobs: list[dict[str, float] | None]
    """The most likely tokens and the token itself; of several with the same text, the most likely one."""
    text_offset: list[int]
    """Where the tokens begin in the text of the choice, in characters."""
    token_ids: list[int]
    """The ids of the tokens."""
    token_bytes: list[list[int]]
    """The bytes of the tokens."""
    top_tokens: list[list[TopToken] | None]
    """As `top_logprobs`, with ids and bytes: tokens of the same text stay apart."""


class ChoiceReply(Reply):
    """A choice, or what an event adds to it."""

    index: int
    """Number of the prompt times n, plus number of the choice."""
    text: str
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class Usage(Reply):
    """Numbers of tokens; the end-of-text token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionReply(Reply):
    """A completion, or an event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    """The model with the step of its weights."""
    system_fingerprint: str
    """Also names the step, and the version of Tokenloom."""
    choices: list[ChoiceReply]
    usage: Usage | None = None
    """In a stream null, except in the last event, if it was requested."""
    seed: int
    """The seed, which repeats the reply. An addition of Tokenloom."""


def choice_json(index: int, pieces: Sequence[Piece], *, has_logprobs: bool) -> dict[str, object]:
    """A choice that consists of these pieces, or what they add to it."""
    return {
        "index": index,
        "text": "".join([piece.text for piece in pieces]),
        "logprobs": _logprobs_json([entry for piece in pieces for entry in piece.entries]) if has_logprobs else None,
        "finish_reason": pieces[-1].finish_reason,
    }


def _logprobs_json(entries: Sequence[LogprobEntry]) -> dict[str, object]:
    return {
        "tokens": [token_name(entry.content) for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [_by_name(entry) for entry in entries],
        "text_offset": [entry.text_offset for entry in entries],
        "token_ids": [entry.token for entry in entries],
        "token_bytes": [list(entry.content) for entry in entries],
        "top_tokens": [_top_json(entry) for entry in entries],
    }


def _by_name(entry: LogprobEntry) -> dict[str, float] | None:
    if entry.top is None:
        return None
    names: dict[str, float] = {}
    for _, content, logprob in entry.top:  # descending: of equal names, the most likely token is kept
        names.setdefault(token_name(content), logprob)
    return names


def _top_json(entry: LogprobEntry) -> list[dict[str, object]] | None:
    if entry.top is None:
        return None
    return [{"id": token, "bytes": list(content), "logprob": logprob} for token, content, logprob in entry.top]
