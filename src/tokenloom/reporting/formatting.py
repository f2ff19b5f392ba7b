"""Numbers, times and text formatted for display on a terminal or a page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

from tokenloom.visible_text import visible as visible
from tokenloom.visible_text import visible_line as visible_line


def quoted(text: str, width: int) -> str:
    """Text as a JSON string literal (control characters escaped), truncated to `width` characters."""
    literal = visible(json.dumps(text, ensure_ascii=False))
    return literal if len(literal) <= width else f"{literal[: width - 1]}…"


def compact(number: float) -> str:
    """A count in at most four digits: 950, 20.3k, 162M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            digits = 0 if abs(scaled) >= 99.95 else 1
            return f"{scaled:.{digits}f}".removesuffix(".0") + letter
    return f"{number:.0f}" if number == round(number) or abs(number) >= 100 else f"{number:.3g}"


def byte_count(count: float) -> str:
    """Bytes in three digits with a decimal unit: 512 bytes, 20.3 kB, 1.56 GB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size * 0.9995:
            scaled = count / size
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return counted(round(count), "byte")


def percent(share: float) -> str:
    """A share in two digits: 12%, 0.043%. One that is not whole is never written as 100%."""
    return "100%" if share >= 1 else f"{min(99.0, 100 * share):.2g}%"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: 1 layer, 12 layers."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def clock_time(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Seconds with units: 7.3 s, 1 min 54 s, 2 h 5 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h", f"{minutes} min"] if hours else [f"{minutes} min", f"{rest} s"]
    return " ".join(part for part in parts if not part.startswith("0 "))


def sparkline(values: Sequence[float], width: int, marks: str = "▁▂▃▄▅▆▇█") -> str:
    """Values as a row of at most `width` bars, scaled from their minimum to their maximum."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [index * len(finite) // count for index in range(count + 1)] if count else []
    means = [sum(finite[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, span = min(means, default=0.0), (max(means, default=0.0) - min(means, default=0.0)) or 1.0
    return "".join(marks[round((mean - low) / span * (len(marks) - 1))] for mean in means)
