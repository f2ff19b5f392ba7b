"""Results of chapter 5 compared with the values that the book prints.

The class of a row says how it is compared:

D  deterministic: equal on every machine
F  floating point: equal as printed, or within 2e-5
R  depends on the random numbers of dropout: equal on Linux x86-64 on the CPU, within a range elsewhere
-  for information, not compared
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

RELATIVE_TOLERANCE = 2e-5  # fp32 sums in another order

RowClass = Literal["D", "F", "R", "-"]


@dataclass(frozen=True)
class ReplayRow:
    """One result of the chapter."""

    row: str
    """Number of the result, or section of the book."""
    description: str
    expected: str
    actual: str
    row_class: RowClass
    ok: bool | None
    """None if the row is not compared."""


@dataclass
class Comparison:
    """Collects the rows of a replay."""

    exact: bool
    """Whether rows of class R are compared for equality."""
    progress: Callable[[str], None]
    """Called with a line of text as the replay proceeds."""
    rows: list[ReplayRow] = field(default_factory=list[ReplayRow])
    remarks: list[str] = field(default_factory=list[str])

    def equal(self, row: str, description: str, expected: object, actual: object) -> None:
        """Add a row of class D."""
        ok = str(expected) == str(actual)
        self.rows.append(ReplayRow(row, description, str(expected), str(actual), "D", ok))

    def close(self, row: str, description: str, expected: Sequence[str], actual: Sequence[float]) -> None:
        """Add a row of class F; `expected` holds the values as the book prints them."""
        printed = [_format_like(value, text) for value, text in zip(actual, expected, strict=True)]
        ok = all(
            text == book_text or abs(value - float(book_text)) <= RELATIVE_TOLERANCE * abs(float(book_text))
            for text, value, book_text in zip(printed, actual, expected, strict=True)
        )
        self.rows.append(ReplayRow(row, description, " ".join(expected), " ".join(printed), "F", ok))

    def random(self, row: str, description: str, expected: str, actual: str) -> None:
        """Add a row of class R, compared only where the random numbers are the book's."""
        self.rows.append(ReplayRow(row, description, expected, actual, "R", expected == actual if self.exact else None))

    def check(self, row: str, description: str, ok: bool) -> None:
        """Add a row of class R with a condition that holds on every machine."""
        self.rows.append(ReplayRow(row, description, "True", str(ok), "R", ok))

    def note(self, row: str, description: str, actual: str) -> None:
        """Add a row that is not compared."""
        self.rows.append(ReplayRow(row, description, "", actual, "-", None))


def spaced(values: Iterable[object]) -> str:
    """The values separated by spaces."""
    return " ".join(str(value) for value in values)


def _format_like(value: float, text: str) -> str:
    """`value` with the digits and notation of the number `text`."""
    mantissa, exponent, _ = text.partition("e")
    digits = len(mantissa.partition(".")[2])
    return f"{value:.{digits}{'e' if exponent else 'f'}}"
