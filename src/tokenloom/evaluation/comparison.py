"""The same text under two models: which parts each of them predicts better.

Nats are comparable only over the same bytes. Models with the same tokens are compared token by token, others over the
shortest runs of whole words that start and end at a token boundary of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from tokenloom.evaluation.inspection import Inspection, Token, figures_json
from tokenloom.evaluation.measurement import Measurement
from tokenloom.evaluation.token_html import difference_html
from tokenloom.evaluation.words import word_starts


@dataclass(frozen=True)
class ComparedModel:
    """One of the two models: its path and its figures for the whole text."""

    model: str
    measurement: Measurement

    def to_json(self) -> dict[str, object]:
        return {"model": self.model} | figures_json(self.measurement)


@dataclass(frozen=True)
class ComparedNats:
    """Negative log-likelihood under the models A and B, in nats."""

    a: float
    b: float

    @property
    def difference(self) -> float:
        """B - A: negative where B predicts the text better."""
        return self.b - self.a

    def to_json(self) -> dict[str, object]:
        return {"nats": [self.a, self.b], "difference": self.difference}


@dataclass(frozen=True)
class TokenPart:
    """A token of the text under both models."""

    token: Token
    nats: ComparedNats

    @property
    def text(self) -> str:
        return self.token.text

    def to_json(self) -> dict[str, object]:
        return self.token.to_json() | self.nats.to_json()


@dataclass(frozen=True)
class WordPart:
    """Whole words, with the white space before them, under both models."""

    text: str
    start: int
    """Position in the text in bytes."""
    nats: ComparedNats

    def to_json(self) -> dict[str, object]:
        return {"text": self.text, "start": self.start} | self.nats.to_json()


@dataclass(frozen=True)
class WordTotal:
    """All occurrences of a word, summed."""

    word: str
    times: int
    nats: ComparedNats

    def to_json(self) -> dict[str, object]:
        return {"word": self.word, "times": self.times} | self.nats.to_json()


@dataclass(frozen=True)
class Comparison:
    """Two models on the same text."""

    models: tuple[ComparedModel, ComparedModel]
    unit: Literal["token", "word"]
    """What `parts` are."""
    before: str
    """The text before the first part, for which at least one of the models has no prediction."""
    parts: tuple[TokenPart, ...] | tuple[WordPart, ...]
    """The text in order."""
    words: tuple[WordTotal, ...]
    """In the order of their difference, B's largest improvement first."""

    def to_json(self) -> dict[str, object]:
        """The comparison as `tokenloom compare --json` prints it."""
        return {
            "models": [model.to_json() for model in self.models],
            "unit": self.unit,
            "before": self.before,
            "parts": [part.to_json() for part in self.parts],
            "words": [word.to_json() for word in self.words],
        }

    def _repr_html_(self) -> str:
        """The text, colored by the difference, which notebooks display."""
        return difference_html(self)


def compare_inspections(text: str, models: tuple[str, str], a: Inspection, b: Inspection) -> Comparison:
    """Compare two results of `inspect_tokens` for one text; `models` are the names of A and B."""
    content = text.encode("utf-8")
    word_parts = _word_parts(content, a, b)
    same_tokens = _ids(a) == _ids(b) and _contents(a) == _contents(b)
    if same_tokens:
        before = a.first.text
        parts = tuple(
            TokenPart(Token(token.id, token.content), ComparedNats(token.nats, other.nats))
            for token, other in zip(a.tokens, b.tokens, strict=True)
        )
    else:
        before = content[: word_parts[0].start if word_parts else None].decode("utf-8")
        parts = word_parts
    return Comparison(
        models=(ComparedModel(models[0], a.measurement), ComparedModel(models[1], b.measurement)),
        unit="token" if same_tokens else "word",
        before=before,
        parts=parts,
        words=_word_totals(word_parts),
    )


def _ids(inspection: Inspection) -> list[int]:
    return [token.id for token in (inspection.first, *inspection.tokens)]


def _contents(inspection: Inspection) -> list[bytes]:
    return [token.content for token in (inspection.first, *inspection.tokens)]


def _word_parts(content: bytes, a: Inspection, b: Inspection) -> tuple[WordPart, ...]:
    """The text cut before words at which a token ends in both models."""
    nats_a, nats_b = _cumulative_nats(a), _cumulative_nats(b)
    starts = set(word_starts(content.decode("utf-8"))) & set(nats_a) & set(nats_b)
    return tuple(
        WordPart(
            content[start:stop].decode("utf-8"),
            start,
            ComparedNats(nats_a[stop] - nats_a[start], nats_b[stop] - nats_b[start]),
        )
        for start, stop in pairwise([*sorted(starts), len(content)])
    )


def _cumulative_nats(inspection: Inspection) -> dict[int, float]:
    """Nats up to the end of each token, by the position of that end in bytes."""
    ends = accumulate(len(content) for content in _contents(inspection))
    nats = accumulate((token.nats for token in inspection.tokens), initial=0.0)
    return dict(zip(ends, nats, strict=True))


def _word_totals(parts: Iterable[WordPart]) -> tuple[WordTotal, ...]:
    occurrences: dict[str, list[ComparedNats]] = {}
    for part in parts:
        occurrences.setdefault(part.text.strip() or part.text, []).append(part.nats)
    totals = [
        WordTotal(word, len(nats), ComparedNats(sum(each.a for each in nats), sum(each.b for each in nats)))
        for word, nats in occurrences.items()
    ]
    return tuple(sorted(totals, key=lambda total: total.nats.difference))
