"""Splitting of long text into chunks that can be encoded separately, at positions that no token crosses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

CHUNK_CHARACTERS = 1 << 18  # large enough that splitting costs nothing, small enough to hold many
# Of text that has no position to split at. tiktoken raises an error for a million characters of white space.
MAX_CHUNK_CHARACTERS = 1 << 19

_PUNCTUATION = ".,;:!?)。，、；：！？」"
# The greedy prefix makes `match` find the last position instead of the first.
_END_OF_RUN = re.compile(
    r"(?s:.*)(?:(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[^\W\d_])(?=\s)|(?<=\s)(?= [^\s/]))"
)


def split_into_chunks(texts: Iterable[str], indivisible: Sequence[str]) -> Iterator[str]:
    """The same text in chunks whose token ids, concatenated, are the ids of the whole text.

    A chunk ends before a single space, after a single newline, between a letter and a punctuation mark, a digit or
    white space, or before the last of several spaces: GPT-2's pattern and its successors split the text there in any
    case. Text without such a position in `MAX_CHUNK_CHARACTERS` is split anyway, but never inside one of the
    `indivisible` strings, such as <|endoftext|>, nor between white space and the word after it.
    """
    pending: list[str] = []
    size = 0
    for text in texts:
        pending.append(text)
        size += len(text)
        if size < CHUNK_CHARACTERS:
            continue
        joined, start = "".join(pending), 0
        while len(joined) - start >= CHUNK_CHARACTERS:
            end = _find_boundary(joined, start, min(start + MAX_CHUNK_CHARACTERS, len(joined)), indivisible)
            if end is None:
                break
            yield joined[start:end]
            start = end
        pending, size = [joined[start:]], len(joined) - start
    if size:
        yield "".join(pending)


def _find_boundary(text: str, start: int, stop: int, indivisible: Sequence[str]) -> int | None:
    """The last position of the best kind in text[start:stop] to split at; None to wait for more text first."""
    # The characters on both sides of a separator have to be known to decide whether it stands alone.
    for separator, offset in ((" ", 0), ("\n", 1)):
        position = text.rfind(separator, start + 1, stop - 1)
        while position > start:
            before, after = text[position - 1], text[position + 1]
            # In some newer patterns, "/" belongs to the newline before it.
            alone = not before.isspace() and not after.isspace() and after != "/"
            if alone and _enclosing_start(text, position + offset, indivisible) is None:
                return position + offset
            position = text.rfind(separator, start + 1, position)
    for mark in _PUNCTUATION:
        position = text.rfind(mark, start + 1, stop)
        while position > start:
            if text[position - 1].isalpha() and _enclosing_start(text, position, indivisible) is None:
                return position
            position = text.rfind(mark, start + 1, position)
    position, starts = stop, tuple(indivisible)
    while match := _END_OF_RUN.match(text, start + 1, position):
        position = match.end()
        # White space before an indivisible string does not belong to a word.
        if _enclosing_start(text, position, indivisible) is None and not text.startswith(starts, position + 1):
            return position
    if len(text) - start <= MAX_CHUNK_CHARACTERS:
        return None
    if text[stop - 1].isspace() and not text[stop].isspace():
        stop -= 1
    return _enclosing_start(text, stop, indivisible) or stop


def _enclosing_start(text: str, position: int, indivisible: Sequence[str]) -> int | None:
    """The start of an indivisible string that `position` is inside of; None if there is none."""
    starts = (
        text.rfind(string, max(0, position - len(string) + 1), position + len(string) - 1) for string in indivisible
    )
    return next((start for start in starts if start >= 0), None)
