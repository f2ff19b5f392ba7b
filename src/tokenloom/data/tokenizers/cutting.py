"""Long text cut into stretches that can be encoded apart, because no token would have crossed the cuts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

STRETCH = 1 << 18  # characters: enough that cutting costs nothing, small enough to hold many
LONGEST = 1 << 22


def stretches(texts: Iterable[str], eot_text: str) -> Iterator[str]:
    """The same text in other pieces: the ids of the pieces, joined, are the ids of the whole.

    A cut falls before a single space, or after a single line end, between other characters: GPT-2's pattern and its
    successors part the text there in any case. Text that has neither for 4 million characters is cut regardless,
    though never inside a written <|endoftext|>.
    """
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size < STRETCH:
            continue
        joined = "".join(held)
        start = 0
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
    """The last place in text[start:stop] to cut; None to wait for more text first."""
    for mark, after in ((" ", 0), ("\n", 1)):
        at = text.rfind(mark, start + 1, stop - 1)
        while at > start:
            # "/" belongs to the line end before it in some newer patterns.
            if not text[at - 1].isspace() and not text[at + 1].isspace() and text[at + 1] != "/":
                return at + after
            at = text.rfind(mark, start + 1, at)
    if stop - start < LONGEST:
        return None
    written = text.rfind(eot_text, stop - len(eot_text) + 1, stop + len(eot_text) - 1)
    return written if written > start else stop
