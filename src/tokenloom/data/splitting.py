"""The split into training and validation text: the end of a single document, or whole documents by their hash."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tokenloom.data.documents import DocumentPart

_HASHED_CHARACTERS = 1 << 16  # a document may be larger than memory, so only its beginning is hashed


@dataclass(frozen=True)
class SplitText:
    """The text of one document that belongs to one split. `texts` has to be read before the next one is requested."""

    split: str
    source: str
    texts: Iterator[str]


class SplitRule(Protocol):
    def assign(self, parts: Iterator[DocumentPart]) -> Iterator[SplitText]:
        """The documents, without empty ones, each assigned to "train" or "val"."""
        ...


@dataclass(frozen=True)
class CharacterSplit:
    """Splits a single document: its first `boundary` characters are training text, the rest validation text."""

    boundary: int

    def assign(self, parts: Iterator[DocumentPart]) -> Iterator[SplitText]:
        for source, document in _documents(parts):
            remainder: list[str] = []
            yield SplitText("train", source, self._take_head(document, remainder))
            yield SplitText("val", source, itertools.chain(remainder, document))

    def _take_head(self, document: Iterator[str], remainder: list[str]) -> Iterator[str]:
        """Consumes `document` up to the boundary; what follows it in the last text goes into `remainder`."""
        missing = self.boundary
        for text in document:
            yield text[:missing]
            if len(text) >= missing:
                remainder.append(text[missing:])
                return
            missing -= len(text)


@dataclass(frozen=True)
class HashSplit:
    """Splits many documents: one whose hash, scaled to 0…1, is below `threshold` is validation text.

    A document stays in its split when others are added, and copies of a document are in the same split.
    """

    threshold: float

    def assign(self, parts: Iterator[DocumentPart]) -> Iterator[SplitText]:
        for source, document in _documents(parts):
            head = _take_head(document)
            split = "val" if _hash_fraction(head) < self.threshold else "train"
            yield SplitText(split, source, itertools.chain(head, document))


def choose_rule(parts: Iterator[DocumentPart], val_fraction: float) -> SplitRule:
    """The rule for these documents, which are read until it is certain that neither split is empty.

    If two or more different documents all fall into one split, the one nearest to the threshold moves to the other.
    """
    if val_fraction == 0:
        return HashSplit(0.0)
    count, length, lowest, highest = 0, 0, math.inf, -math.inf
    for _, document in _documents(parts):
        head = _take_head(document)
        fraction = _hash_fraction(head)
        count += 1
        lowest, highest = min(lowest, fraction), max(highest, fraction)
        if lowest < val_fraction <= highest:
            return HashSplit(val_fraction)
        length = sum(map(len, head)) + sum(map(len, document))
    if count == 1:
        return CharacterSplit(int(length * (1 - val_fraction)))
    if lowest == highest:  # copies of one document
        return HashSplit(0.0)
    return HashSplit(math.nextafter(lowest, 1) if lowest >= val_fraction else highest)


def _documents(parts: Iterator[DocumentPart]) -> Iterator[tuple[str, Iterator[str]]]:
    """The source and the texts of each document that is not empty."""
    for first in parts:
        texts = _texts(first, parts)
        if first.text or not first.ends_document:
            yield first.source, texts
        for _ in texts:  # skip what the caller has not read
            pass


def _texts(part: DocumentPart, parts: Iterator[DocumentPart]) -> Iterator[str]:
    yield part.text
    while not part.ends_document:
        part = next(parts)
        yield part.text


def _take_head(document: Iterator[str]) -> list[str]:
    """Consumes the first texts of a document, enough to compute its hash."""
    head: list[str] = []
    size = 0
    while size < _HASHED_CHARACTERS and (text := next(document, None)) is not None:
        head.append(text)
        size += len(text)
    return head


def _hash_fraction(head: list[str]) -> float:
    """The hash of a document's beginning, as a number from 0 to 1."""
    digest = hashlib.blake2b("".join(head)[:_HASHED_CHARACTERS].encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
