"""The replies of `explanation_api.py`, for /openapi.json."""

from __future__ import annotations

from typing import Literal

from tokenloom.serving.reply_schema import Number, Reply


class TokenReply(Reply):
    """A token."""

    id: int
    text: str
    """Bytes that are not UTF-8 on their own are U+FFFD."""
    bytes: str
    """In hexadecimal."""


class AlternativeReply(TokenReply):
    """A token that the model could have predicted."""

    probability: Number


class ScoredTokenReply(TokenReply):
    """A token of the text, and the model's prediction at its position."""

    log_probability: Number
    """In nats."""
    probability: Number
    rank: int
    """1 if no token is more likely."""
    entropy: Number
    """In nats."""
    top: list[AlternativeReply]


class FiguresReply(Reply):
    """The figures of a model for the whole text."""

    model: str
    nats: Number
    loss: Number
    """Nats per token."""
    perplexity: Number
    bits_per_byte: Number | None
    scored_tokens: int
    scored_bytes: int | None
    context: int
    stride: int


class InspectReply(FiguresReply):
    """The predictions of a model for a text."""

    first: TokenReply
    """Not scored: it has no context."""
    tokens: list[ScoredTokenReply]


class DifferenceInNats(Reply):
    """A part of a text under the models A and B."""

    nats: tuple[Number, Number]
    difference: Number
    """B - A: negative where B predicts the text better."""


class TokenPartReply(TokenReply, DifferenceInNats):
    """A token under both models."""


class WordPartReply(DifferenceInNats):
    """Whole words under both models."""

    text: str
    start: int
    """In bytes."""


class WordTotalReply(DifferenceInNats):
    """All occurrences of a word."""

    word: str
    times: int


class CompareReply(Reply):
    """A text under two models."""

    models: tuple[FiguresReply, FiguresReply]
    unit: Literal["token", "word"]
    """What the parts are."""
    before: str
    """The text before the first part."""
    parts: list[TokenPartReply] | list[WordPartReply]
    words: list[WordTotalReply]
    """B's largest improvement first."""


class NextTokenReply(TokenReply):
    """A token that can come next."""

    logit: Number
    log_probability: Number
    """In nats, before the sampling parameters."""
    probability: Number
    """Before the sampling parameters."""
    sampled_probability: Number
    """After all of them."""
    excluded_by: str | None
    """The first sampling parameter with which the token cannot be chosen."""


class NextTokensReply(Reply):
    """What can come after a text."""

    model: str
    context: list[int]
    """The tokens that the model was given."""
    entropy: Number
    choices: int
    """Tokens that can be chosen with the sampling parameters."""
    tokens: list[NextTokenReply]
    """The most likely first."""


class _AttentionReply(Reply):
    model: str
    layers: int
    heads: int
    text_tokens: int
    """Tokens of the whole text."""


class AttentionMapsReply(_AttentionReply):
    """The attention of all heads, as small maps."""

    maps: list[list[list[list[int]]]]
    """By layer and head: rows up to the diagonal, in percent."""


class AttentionReply(_AttentionReply):
    """The attention weights of one head."""

    layer: int
    head: int
    tokens: list[TokenReply]
    weights: list[list[Number]]
    """Row t has the weights of token t for the tokens up to it."""
