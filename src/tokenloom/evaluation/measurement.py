"""The result of an evaluation: loss, perplexity and bits per byte, with the settings that they depend on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from tokenloom.run_records import Baselines


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Sums over the scored tokens of a text, and how the tokens were scored.

    The first token of a text is not scored, since no token precedes it: of n tokens, n - 1 are scored. The context and
    stride are part of the result: the same model has perplexity 37 or 48 on the same text, depending on the stride.
    """

    nats: float
    """Summed negative log-likelihood."""
    tokens: int
    """Scored tokens."""
    context: int
    """Tokens in a window."""
    stride: int
    """Tokens between the starts of two windows."""
    bytes: int | None = None
    """Length of the scored tokens in bytes; None if not measured."""
    words: int | None = None
    """Words of the text; None if not counted."""

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): as uncertain as a uniform choice among this many tokens. Infinite if larger than any float."""
        return _exp(self.loss)

    @property
    def bits_per_byte(self) -> float | None:
        """Comparable between tokenizers and with compressors; None without `bytes`."""
        return self.nats / math.log(2) / self.bytes if self.bytes else None

    @property
    def word_perplexity(self) -> float | None:
        """Perplexity per word, comparable between tokenizers; None without `words`."""
        return _exp(self.nats / self.words) if self.words else None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Measurement):
    """A measurement, the precision it was computed in, and the baselines on the same text."""

    precision: str
    baselines: Baselines

    def to_json(self) -> dict[str, object]:
        """The evaluation as `tokenloom evaluate --json` prints it."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "word_perplexity": self.word_perplexity,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "context": self.context,
            "stride": self.stride,
            "precision": self.precision,
            "baselines": asdict(self.baselines),
        }


def _exp(nats: float) -> float:
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
