"""What a model predicts at each token of a text: probability and rank of the token, top alternatives, entropy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.evaluation.loss import default_context, evaluating, windows
from tokenloom.evaluation.measurement import Measurement
from tokenloom.model.head import IGNORE_INDEX
from tokenloom.model.language_model import LanguageModel


@dataclass(frozen=True)
class Token:
    """A token: its id and its bytes, which may be a part of a character."""

    id: int
    content: bytes

    @property
    def text(self) -> str:
        """The bytes as text; those that are not UTF-8 on their own become U+FFFD."""
        return self.content.decode("utf-8", "replace")

    def to_json(self) -> dict[str, object]:
        """Id, text, and bytes in hexadecimal."""
        return {"id": self.id, "text": self.text, "bytes": self.content.hex()}


@dataclass(frozen=True)
class TokenAlternative(Token):
    """A token that the model could have predicted, with its probability."""

    probability: float

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"probability": self.probability}


@dataclass(frozen=True)
class ScoredToken(Token):
    """A token of the text, and the model's prediction at its position."""

    log_probability: float
    """In nats."""
    rank: int
    """1 if no token is more likely."""
    entropy: float
    """Entropy of the predicted distribution, in nats."""
    top: tuple[TokenAlternative, ...]
    """The most likely tokens, in descending order; the token itself may be among them."""

    @property
    def nats(self) -> float:
        """Negative log-likelihood."""
        return -self.log_probability

    @property
    def probability(self) -> float:
        return math.exp(self.log_probability)

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {
            "log_probability": self.log_probability,
            "probability": self.probability,
            "rank": self.rank,
            "entropy": self.entropy,
            "top": [alternative.to_json() for alternative in self.top],
        }


@dataclass(frozen=True)
class Inspection:
    """The predictions of a model for every token of a text but the first, which has no context."""

    measurement: Measurement
    first: Token
    tokens: tuple[ScoredToken, ...]

    def to_json(self) -> dict[str, object]:
        """The inspection as `tokenloom inspect --json` prints it."""
        return figures_json(self.measurement) | {
            "first": self.first.to_json(),
            "tokens": [token.to_json() for token in self.tokens],
        }


def inspect_tokens(
    model: LanguageModel,
    ids: np.ndarray,
    tokenizer: Tokenizer,
    *,
    top: int = 10,
    context: int | None = None,
    stride: int | None = None,
) -> Inspection:
    """Score every token of ids (n,) but the first, in the windows of `measure`, with the `top` most likely tokens.

    `context` defaults to the model's block size and `stride` to the context. The logits of one window are in memory at
    a time. Raises `UsageError` and `DataError` as `measure` does, and `UsageError` for a negative `top`.
    """
    if top < 0:
        raise UsageError(f"top must be 0 or more, got {top}. Try 10.")
    context = default_context(model.config.block_size, len(ids)) if context is None else context
    stride = context if stride is None else stride
    device = next(model.parameters()).device
    tokens: list[ScoredToken] = []
    with torch.no_grad(), evaluating(model.modules()):
        for window, targets in windows(TokenArray(ids), model.config, context, stride):
            scored = targets[0] != IGNORE_INDEX
            logits = model(torch.as_tensor(window, device=device))[0]  # (T, V)
            logits = logits[torch.as_tensor(scored, device=device)]  # (scored, V)
            tokens += _score(logits.float(), torch.as_tensor(targets[0, scored], device=device), tokenizer, top)
    measurement = Measurement(
        nats=math.fsum(token.nats for token in tokens),
        tokens=len(tokens),
        context=context,
        stride=stride,
        bytes=int(tokenizer.byte_lengths[ids[1:].astype(np.int64)].sum()),
    )
    return Inspection(measurement, _token(int(ids[0]), tokenizer), tuple(tokens))


def figures_json(measurement: Measurement) -> dict[str, object]:
    """A measurement under the keys of `tokenloom inspect --json` and `tokenloom compare --json`."""
    return {
        "nats": measurement.nats,
        "loss": measurement.loss,
        "perplexity": measurement.perplexity,
        "bits_per_byte": measurement.bits_per_byte,
        "scored_tokens": measurement.tokens,
        "scored_bytes": measurement.bytes,
        "context": measurement.context,
        "stride": measurement.stride,
    }


def _score(logits: Tensor, targets: Tensor, tokenizer: Tokenizer, top: int) -> Iterator[ScoredToken]:
    """The predictions of logits (N, V) for targets (N,)."""
    log_probs = logits.log_softmax(dim=-1)
    target_log_probs = log_probs.gather(-1, targets[:, None])  # (N, 1)
    ranks = (log_probs > target_log_probs).sum(dim=-1) + 1
    # p · log p is 0 for p = 0, but 0 · -inf would be NaN.
    entropies = -torch.where(log_probs.isinf(), 0.0, log_probs.exp() * log_probs).sum(dim=-1)
    top_log_probs, top_ids = log_probs.topk(min(top, log_probs.shape[-1]), dim=-1)
    integers = torch.cat([targets[:, None], ranks[:, None], top_ids], dim=1)
    floats = torch.cat([target_log_probs, entropies[:, None], top_log_probs], dim=1)
    integer_rows: list[list[int]] = integers.tolist()  # pyright: ignore  # torch annotates it as a plain list
    float_rows: list[list[float]] = floats.tolist()  # pyright: ignore  # as above
    for (token, rank, *ids), (log_prob, entropy, *id_log_probs) in zip(integer_rows, float_rows, strict=True):
        alternatives = tuple(
            TokenAlternative(id, _content(id, tokenizer), math.exp(value))
            for id, value in zip(ids, id_log_probs, strict=True)
        )
        yield ScoredToken(token, _content(token, tokenizer), log_prob, rank, entropy, alternatives)


def _token(id: int, tokenizer: Tokenizer) -> Token:
    return Token(id, _content(id, tokenizer))


def _content(id: int, tokenizer: Tokenizer) -> bytes:
    # Ids that only pad the model's vocabulary have no bytes.
    return tokenizer.token_bytes[id] if id < tokenizer.vocab_size else b""
