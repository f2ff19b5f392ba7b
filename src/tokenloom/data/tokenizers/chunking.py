"""Long text cut into stretches that can be encoded apart, because no token would have crossed the cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

STRETCH = 1 << 18  # characters: enough that cutting costs nothing, small enough to hold many
LONGEST = 1 << 20  # what a tokenizer has to hold of a text without any place to cut

_AFTER_LETTERS = ".,;:!?)。，、；：！？」"


def stretches(texts: Iterable[str], whole: Sequence[str]) -> Iterator[str]:
    """The same text in other pieces: the ids of the pieces, joined, are the ids of the whole.

    A cut falls before a single space, after a single line end, or between a letter and a punctuation mark: there
    GPT-2's pattern and its successors part the text in any case. Text that has no such place for a million characters
    is cut regardless, though never inside one of the texts in `whole`, such as <|endoftext|>.
    """
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size < STRETCH:
            continue
        joined, start = "".join(held), 0
        while len(joined) - start >= STRETCH:
            end = _last_cut(joined, start, min(start + LONGEST, len(joined)), whole)
            if end is None:
                break
            yield joined[start:end]
            start = end
        held, size = [joined[start:]], len(joined) - start
    if size:
        yield "".join(held)


def _last_cut(text: str, start: int, stop: int, whole: Sequence[str]) -> int | None:
    """The last place of the best kind in text[start:stop] to cut; None to wait for more text first."""
    # The characters on both sides of a mark must be known, so that its place can be judged.
    for mark, cut_after in ((" ", 0), ("\n", 1)):
        at = text.rfind(mark, start + 1, stop - 1)
        while at > start:
            # "/" belongs to the line end before it in some newer patterns.
            apart = not text[at - 1].isspace() and not text[at + 1].isspace() and text[at + 1] != "/"
            if apart and _around(text, at + cut_after, whole) is None:
                return at + cut_after
            at = text.rfind(mark, start + 1, at)
    for mark in _AFTER_LETTERS:
        at = text.rfind(mark, start + 1, stop)
        while at > start:
            if text[at - 1].isalpha() and _around(text, at, whole) is None:
                return at
            at = text.rfind(mark, start + 1, at)
    if stop - start < LONGEST:
        return None
    return _around(text, stop, whole) or stop


def _around(text: str, at: int, whole: Sequence[str]) -> int | None:
    """Where a text that must stay whole begins, if a cut at `at` would fall inside it."""
    found = (text.rfind(part, max(0, at - len(part) + 1), at + len(part) - 1) for part in whole)
    return next((place for place in found if place >= 0), None)
