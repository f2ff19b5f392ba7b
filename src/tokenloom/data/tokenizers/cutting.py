"""Long text cut into stretches that can be encoded apart, because no token would have crossed the cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

STRETCH = 1 << 18  # characters: enough that cutting costs nothing, small enough to hold many
LONGEST = 1 << 20  # what a tokenizer has to hold of a text without any place to cut

_AFTER_LETTERS = ".,;:!?)。，、；：！？」"


def stretches(texts: Iterable[str], eot_text: str) -> Iterator[str]:
    """The same text in other pieces: the ids of the pieces, joined, are the ids of the whole.

    A cut falls before a single space, after a single line end, or between a letter and a punctuation mark: there
    GPT-2's pattern and its successors part the text in any case. Text that has no such place for a million characters
    is cut regardless, though never inside a written <|endoftext|>.
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
            end = _last_cut(joined, start, min(start + LONGEST, len(joined)), eot_text)
            if end is None:
                break
            yield joined[start:end]
            start = end
        held, size = [joined[start:]], len(joined) - start
    if size:
        yield "".join(held)


def _last_cut(text: str, start: int, stop: int, eot_text: str) -> int | None:
    """The last place of the best kind in text[start:stop] to cut; None to wait for more text first."""
    # The characters on both sides of a mark must be known, so that its place can be judged.
    for mark, cut_after in ((" ", 0), ("\n", 1)):
        at = text.rfind(mark, start + 1, stop - 1)
        while at > start:
            # "/" belongs to the line end before it in some newer patterns.
            if not text[at - 1].isspace() and not text[at + 1].isspace() and text[at + 1] != "/":
                return at + cut_after
            at = text.rfind(mark, start + 1, at)
    for mark in _AFTER_LETTERS:
        at = text.rfind(mark, start + 1, stop)
        while at > start:
            if text[at - 1].isalpha():
                return at
            at = text.rfind(mark, start + 1, at)
    if stop - start < LONGEST:
        return None
    written = text.rfind(eot_text, stop - len(eot_text) + 1, stop + len(eot_text) - 1)
    return written if written > start else stop
