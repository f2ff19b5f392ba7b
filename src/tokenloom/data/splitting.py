"""The split into training and validation text: whole documents by their hash, or the end of the text."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tokenloom.data.documents import DocumentPart

_HASHED_CHARACTERS = 1 << 16  # a document may be larger than memory, so only its beginning is hashed
_MEASURED_CHARACTERS = 1 << 28  # enough to know the sizes of the splits, and read in seconds


@dataclass(frozen=True)
class SplitText:
    """The text of one document that belongs to one split. `texts` has to be read before the next one is requested."""

    split: str
    source: str
    texts: Iterator[str]


class SplitRule(Protocol):
    @property
    def notice(self) -> str | None:
        """What the user should know about the split."""
        ...

    def assign(self, parts: Iterator[DocumentPart]) -> Iterator[SplitText]:
        """The documents, without empty ones, each assigned to "train" or "val"."""
        ...


@dataclass(frozen=True)
class CharacterSplit:
    """Splits the text of all documents: its first `boundary` characters are training text, the rest validation text."""

    boundary: int
    notice: str | None = None
    """Why documents are not kept whole, for the user; None for a single document."""

    def assign(self, parts: Iterator[DocumentPart]) -> Iterator[SplitText]:
        missing = self.boundary
        remainder: list[str] = []

        def take_head(document: Iterator[str]) -> Iterator[str]:
            """Consumes `document` up to the boundary; what follows it in the last text goes into `remainder`."""
            nonlocal missing
            for text in document:
                yield text[:missing]
                if len(text) >= missing:
                    remainder.append(text[missing:])
                    missing = 0
                    return
                missing -= len(text)

        for source, document in _documents(parts):
            remainder.clear()
            if missing > 0:
                yield SplitText("train", source, take_head(document))
            if missing == 0:
                yield SplitText("val", source, itertools.chain(remainder, document))


@dataclass(frozen=True)
class HashSplit:
    """Splits many documents: one whose hash, scaled to 0…1, is below `threshold` is validation text.

    A document stays in its split when others are added, and copies of a document are in the same split.
    """

    threshold: float
    notice: str | None = None

    def assign(self, parts: Iterator[DocumentPart]) -> Iterator[SplitText]:
        for source, document in _documents(parts):
            head = _take_head(document)
            split = "val" if _hash_fraction(head) < self.threshold else "train"
            yield SplitText(split, source, itertools.chain(head, document))


def choose_rule(parts: Iterator[DocumentPart], val_fraction: float) -> SplitRule:
    """The rule for these documents, which are read until the sizes of the splits are known well enough.

    If two or more different documents all fall into one split, the one nearest to the threshold moves to the other. If
    validation text would then be larger than training text, because few documents contain most of the text, the end
    of the whole text is held out instead.
    """
    if val_fraction == 0:
        return HashSplit(0.0)
    count = total = val = 0
    extremes: dict[float, int] = {}  # the lowest and the highest hash, each with the size of its documents
    for _, document in _documents(parts):
        head = _take_head(document)
        fraction = _hash_fraction(head)
        size = sum(map(len, head)) + sum(map(len, document))
        count, total, val = count + 1, total + size, val + (size if fraction < val_fraction else 0)
        extremes[fraction] = extremes.get(fraction, 0) + size
        extremes = {hashed: extremes[hashed] for hashed in (min(extremes), max(extremes))}
        if total >= _MEASURED_CHARACTERS and 0 < val <= total * _largest_share(val_fraction):
            return HashSplit(val_fraction)
    if count == 0:
        return HashSplit(val_fraction)
    if count == 1:
        return CharacterSplit(int(total * (1 - val_fraction)))
    lowest, highest = min(extremes), max(extremes)
    if lowest == highest:  # copies of one document
        return HashSplit(0.0)
    threshold = val_fraction
    if lowest >= val_fraction:
        threshold, val = math.nextafter(lowest, 1), extremes[lowest]
    elif highest < val_fraction:
        threshold, val = highest, total - extremes[highest]
    if val <= total * _largest_share(val_fraction):
        return HashSplit(threshold)
    boundary = min(max(1, int(total * (1 - val_fraction))), total - 1)
    return CharacterSplit(
        boundary,
        f"holding out whole documents would make {val / total:.1%} of the text validation text, because they differ so "
        f"much in size: the last {val_fraction:.1%} of the text is held out instead.",
    )


def share_notice(train_bytes: int, val_bytes: int, val_fraction: float) -> str | None:
    """A notice if the share of validation text is far from the requested one; None otherwise."""
    share = val_bytes / max(1, train_bytes + val_bytes)
    if val_fraction / 4 <= share <= 3 * val_fraction:
        return None
    return (
        f"{share:.2%} of the text is validation text, not {val_fraction:.2%} as requested, because whole documents are "
        "held out. Pass more documents, or one document, of which the end is held out."
    )


def _largest_share(val_fraction: float) -> float:
    """The largest share of validation text that is accepted: half of the text, or more if much was requested."""
    return max(0.5, 1.5 * val_fraction)


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
