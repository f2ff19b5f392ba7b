"""What a model predicts at each token of a text: probability and rank of the token, top alternatives, entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.evaluation.log_probabilities import ROWS_AT_ONCE, log_probabilities, most_likely
from tokenloom.evaluation.loss import default_context, evaluating, windows
from tokenloom.evaluation.measurement import Measurement
from tokenloom.evaluation.token_html import heatmap_html
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
    tokens: Sequence[ScoredToken]

    def to_json(self) -> dict[str, object]:
        """The inspection as `tokenloom inspect --json` prints it."""
        return self.head_json() | {"tokens": [token.to_json() for token in self.tokens]}

    def head_json(self) -> dict[str, object]:
        """All of `to_json` but the tokens, which take much more memory as JSON than here."""
        return figures_json(self.measurement) | {"first": self.first.to_json()}

    def _repr_html_(self) -> str:
        """The text as a heatmap, which notebooks display."""
        return heatmap_html(self)


class ScoredTokens(Sequence[ScoredToken]):
    """The scored tokens of a text in arrays, of which each token is created when it is read.

    A token takes 16 bytes and 8 for each alternative, a hundredth of what the objects take.
    """

    def __init__(self, count: int, top: int, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids, self._ranks = np.empty(count, np.uint32), np.empty(count, np.uint32)
        self._log_probs, self._entropies = np.empty(count, np.float32), np.empty(count, np.float32)
        self._top_ids = np.empty((count, top), np.uint32)
        self._top_log_probs = np.empty((count, top), np.float32)

    @property
    def nats(self) -> float:
        """Summed negative log-likelihood."""
        return -math.fsum(self._log_probs)

    def score(self, start: int, logits: Tensor, targets: Tensor) -> None:
        """Set the tokens from number `start` on: targets (N,) and what logits (N, V) predict for them."""
        rows = slice(start, start + len(targets))
        log_probs = log_probabilities(logits)
        target_log_probs = log_probs.gather(-1, targets[:, None])  # (N, 1)
        # p · log p is 0 for p = 0, but 0 · -inf would be NaN.
        entropies = -torch.where(log_probs.isinf(), 0.0, log_probs.exp() * log_probs).sum(dim=-1)
        top_log_probs, top_ids = most_likely(log_probs, self._top_ids.shape[1])
        for column, values in (
            (self._ids, targets),
            (self._ranks, (log_probs > target_log_probs).sum(dim=-1) + 1),
            (self._log_probs, target_log_probs[:, 0]),
            (self._entropies, entropies),
            (self._top_ids, top_ids),
            (self._top_log_probs, top_log_probs),
        ):
            column[rows] = values.cpu().numpy()

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> ScoredToken: ...
    @overload
    def __getitem__(self, index: slice) -> list[ScoredToken]: ...
    def __getitem__(self, index: int | slice) -> ScoredToken | list[ScoredToken]:
        if isinstance(index, slice):
            return [self._token(row) for row in range(len(self))[index]]
        return self._token(range(len(self))[index])

    def _token(self, row: int) -> ScoredToken:
        id, tokenizer = int(self._ids[row]), self._tokenizer
        alternatives = zip(self._top_ids[row].tolist(), self._top_log_probs[row].tolist(), strict=True)
        return ScoredToken(
            id,
            _content(id, tokenizer),
            float(self._log_probs[row]),
            int(self._ranks[row]),
            float(self._entropies[row]),
            tuple(
                TokenAlternative(other, _content(other, tokenizer), math.exp(value)) for other, value in alternatives
            ),
        )


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

    `context` defaults to the model's block size and `stride` to the context. The logits of `ROWS_AT_ONCE` tokens are in
    memory at a time, and 16 bytes of each token, with 8 more for each of the `top`. Raises `UsageError` and `DataError`
    as `measure` does, and `UsageError` for a negative `top`.
    """
    if top < 0:
        raise UsageError(f"top must be 0 or more, got {top}. Try 10.")
    context = default_context(model.config.block_size, len(ids)) if context is None else context
    stride = context if stride is None else stride
    device = next(model.parameters()).device
    done, tokens = 0, ScoredTokens(max(0, len(ids) - 1), min(top, model.config.vocabulary), tokenizer)
    with torch.no_grad(), evaluating(model.modules()):
        for window, targets in windows(TokenArray(ids), model.config, context, stride):
            scored = targets[0] != IGNORE_INDEX
            hidden = model.hidden(torch.as_tensor(window, device=device))[0]  # (T, C)
            hidden = hidden[torch.as_tensor(scored, device=device)]
            of_window = torch.as_tensor(targets[0, scored], device=device)
            # The logits of a whole window are 200 MB for GPT-2, and several arrays of that size are computed from them.
            for x, some in zip(torch.split(hidden, ROWS_AT_ONCE), torch.split(of_window, ROWS_AT_ONCE), strict=True):
                tokens.score(done, model.lm_head(x), some)
                done += len(x)
    measurement = Measurement(
        nats=tokens.nats,
        tokens=len(tokens),
        context=context,
        stride=stride,
        bytes=int(tokenizer.byte_lengths[ids[1:].astype(np.int64)].sum()),
    )
    return Inspection(measurement, Token(int(ids[0]), _content(int(ids[0]), tokenizer)), tokens)


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


def _content(id: int, tokenizer: Tokenizer) -> bytes:
    # Ids that only pad the model's vocabulary have no bytes.
    return tokenizer.token_bytes[id] if id < tokenizer.vocab_size else b""
