"""Which text trains and which validates: the end of a single text, or whole documents by their hash."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tokenloom.data.readers import Piece

_HEAD = 1 << 16  # characters of a document that are hashed: it may be longer than memory


@dataclass(frozen=True)
class Part:
    """The text of one document that belongs to one split; its texts must be read before the next part is asked for."""

    split: str
    source: str
    texts: Iterator[str]


class SplitRule(Protocol):
    def parts(self, pieces: Iterator[Piece]) -> Iterator[Part]:
        """The documents, empty ones left out, each assigned to "train" or "val"."""
        ...


@dataclass(frozen=True)
class ByCharacters:
    """A single document: its first `boundary` characters train, the rest validate."""

    boundary: int

    def parts(self, pieces: Iterator[Piece]) -> Iterator[Part]:
        for source, document in _documents(pieces):
            overhang: list[str] = []
            yield Part("train", source, self._head(document, overhang))
            yield Part("val", source, itertools.chain(overhang, document))

    def _head(self, document: Iterator[str], overhang: list[str]) -> Iterator[str]:
        wanted = self.boundary
        for text in document:
            yield text[:wanted]
            if len(text) >= wanted:
                overhang.append(text[wanted:])
                return
            wanted -= len(text)


@dataclass(frozen=True)
class ByHash:
    """Many documents: one whose hash, as a number from 0 to 1, is less than `below` validates.

    A document stays where it is when others are added, and its copies are on its side.
    """

    below: float

    def parts(self, pieces: Iterator[Piece]) -> Iterator[Part]:
        for source, document in _documents(pieces):
            head = _head_of(document)
            split = "val" if _share(head) < self.below else "train"
            yield Part(split, source, itertools.chain(head, document))


def choose_rule(pieces: Iterator[Piece], val_fraction: float) -> SplitRule:
    """The rule for these documents: they are read until it is sure that neither split stays empty.

    Two or more documents that all fall on one side give up the one nearest to the other side.
    """
    if val_fraction == 0:
        return ByHash(0.0)
    count, length, lowest, highest = 0, 0, math.inf, -math.inf
    for _, document in _documents(pieces):
        head = _head_of(document)
        count += 1
        lowest, highest = min(lowest, _share(head)), max(highest, _share(head))
        if lowest < val_fraction <= highest:
            return ByHash(val_fraction)
        length = sum(map(len, head)) + sum(map(len, document))
    if count == 1:
        return ByCharacters(int(length * (1 - val_fraction)))
    if lowest == highest:  # copies of one text
        return ByHash(0.0)
    return ByHash(math.nextafter(lowest, 1) if lowest >= val_fraction else highest)


def _documents(pieces: Iterator[Piece]) -> Iterator[tuple[str, Iterator[str]]]:
    """Each document's source and texts; those without a character are left out."""
    for first in pieces:
        texts = _texts(first, pieces)
        if first.text or not first.ends_document:
            yield first.source, texts
        for _ in texts:  # whatever was not read of it
            pass


def _texts(piece: Piece, pieces: Iterator[Piece]) -> Iterator[str]:
    yield piece.text
    while not piece.ends_document:
        piece = next(pieces)
        yield piece.text


def _head_of(document: Iterator[str]) -> list[str]:
    """Takes the first texts of a document, enough to hash."""
    head, size = [], 0
    while size < _HEAD and (text := next(document, None)) is not None:
        head.append(text)
        size += len(text)
    return head


def _share(head: list[str]) -> float:
    """A number from 0 to 1 that depends on the beginning of the text alone."""
    digest = hashlib.blake2b("".join(head)[:_HEAD].encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
