"""The same text under two models: where one expected what the other did not.

Nats can be compared only over the same bytes. Where both models cut the text alike they are compared token by token,
else over the smallest stretches of words that both begin and end with a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

Inspected = Mapping[str, Any]
_WORD = re.compile(rb"\s*\S+")


def compare_inspected(text: str, a: Inspected, b: Inspected) -> dict[str, Any]:
    """Two results of `inspect_tokens` for one text, side by side; a difference is B's nats less A's.

    `parts` are the text in order, by `unit`: token or word; `before` is what comes ahead of them, which nothing
    predicts in one of the models or which is shared with such a token. `words` are summed over the places where they
    stand, from the one that B gained most on to the one that it lost most on.
    """
    words = _stretches(text.encode("utf-8"), a, b)
    alike = [a["first"], *map(_identity, a["tokens"])] == [b["first"], *map(_identity, b["tokens"])]
    if alike:
        before = a["first"]["text"]
        parts = [
            {**_identity(token), **_nats(-token["log_probability"], -other["log_probability"])}
            for token, other in zip(a["tokens"], b["tokens"], strict=True)
        ]
    else:
        parts = words
        before = text.encode("utf-8")[: words[0]["start"] if words else None].decode("utf-8")
    return {
        "models": [{key: value for key, value in model.items() if key not in ("first", "tokens")} for model in (a, b)],
        "unit": "token" if alike else "word",
        "before": before,
        "parts": parts,
        "words": _summed(words),
    }


def _identity(token: Mapping[str, Any]) -> dict[str, Any]:
    return {key: token[key] for key in ("id", "text", "bytes")}


def _nats(a: float, b: float) -> dict[str, Any]:
    return {"nats": [a, b], "difference": b - a}


def _stretches(content: bytes, a: Inspected, b: Inspected) -> list[dict[str, Any]]:
    """Whole words, with the white space before them, between places where both models have the end of a token."""
    ends_a, ends_b = _ends(a), _ends(b)
    words = {match.start() for match in _WORD.finditer(content)} & set(ends_a) & set(ends_b)
    sums_a, sums_b = _sums(a), _sums(b)
    at_a, at_b = ({end: i for i, end in enumerate(ends)} for ends in (ends_a, ends_b))
    return [
        {
            "text": content[start:stop].decode("utf-8"),
            "start": start,
            **_nats(
                sums_a[at_a[stop]] - sums_a[at_a[start]],
                sums_b[at_b[stop]] - sums_b[at_b[start]],
            ),
        }
        for start, stop in pairwise([*sorted(words), len(content)])
    ]


def _ends(model: Inspected) -> list[int]:
    """The byte at which each token ends, the first one included."""
    return list(accumulate(len(token["bytes"]) // 2 for token in (model["first"], *model["tokens"])))


def _sums(model: Inspected) -> list[float]:
    """Nats up to the end of each token."""
    return list(accumulate((-token["log_probability"] for token in model["tokens"]), initial=0.0))


def _summed(stretches: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    places: dict[str, list[Sequence[float]]] = {}
    for stretch in stretches:
        places.setdefault(stretch["text"].strip() or stretch["text"], []).append(stretch["nats"])
    summed = [
        {"word": word, "times": len(nats), **_nats(sum(a for a, _ in nats), sum(b for _, b in nats))}
        for word, nats in places.items()
    ]
    return sorted(summed, key=lambda word: word["difference"])
