"""A table as lines of text with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

from tokenloom.reporting.formatting import visible_line

_MAX_CELL = 28  # characters


def aligned(rows: Sequence[Sequence[str]], text_columns: int) -> list[str]:
    """Lines whose columns are aligned: the first `text_columns` to the left, numbers to the right."""
    shown = [[_shortened(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def _shortened(cell: str) -> str:
    line = visible_line(cell)
    return line if len(line) <= _MAX_CELL else f"{line[: _MAX_CELL - 1]}…"
