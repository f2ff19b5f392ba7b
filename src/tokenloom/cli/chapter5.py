"""tokenloom chapter5: reproduce the results of the book's chapter 5."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.output import print_json, print_progress, result_console
from tokenloom.cli.parameters import HARDWARE, RUN, Json
from tokenloom.reporting.formatting import visible

if TYPE_CHECKING:
    from tokenloom.book.replay import ReplayResult

OK_LABELS = {True: "yes", False: "NO", None: "-"}
RULES = {
    "exact": "Rows of class R are compared for equality: Linux, x86-64, CPU.",
    "bands": "Rows of class R are compared only within a range, since this is not Linux on an x86-64 CPU.",
}


def chapter5(
    *,
    quick: Annotated[bool, Parameter(group=RUN, negative="", show_default=False)] = False,
    out: Annotated[Path, Parameter(group=RUN)] = Path("chapter5"),
    device: Annotated[str, Parameter(group=HARDWARE)] = "cpu",
    json: Json = False,
) -> None:
    """Reproduce chapter 5 of the book on The Verdict and compare every result.

    Exits with code 1 if a result differs. The 90 training steps take as long as the book's own code: about ten minutes
    on two cores.

    Parameters
    ----------
    quick
        Skip the 90 training steps.
    out
        Folder for the plots.
    device
        Device to run on. Training results are compared exactly on cpu only, and within a range on other devices.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    from tokenloom.book.replay import replay_chapter5

    result = replay_chapter5(quick=quick, out=out, device=device, progress=print_progress)
    if json:
        print_json(_to_json(result))
    else:
        _print_table(result, out)
    if result.failed:
        sys.exit(1)


def _to_json(result: ReplayResult) -> dict[str, object]:
    rows = [
        {
            "row": row.row,
            "what": row.description,
            "expected": row.expected,
            "got": row.actual,
            "class": row.row_class,
            "ok": row.ok,
        }
        for row in result.rows
    ]
    return {
        "rows": rows,
        "passed": result.passed,
        "failed": result.failed,
        "seconds": result.seconds,
        "rule": result.rule,
        "remarks": result.remarks,
    }


def _print_table(result: ReplayResult, out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("row", "what", "expected", "got", "class", "ok"):
        narrow = name in ("row", "class", "ok")
        table.add_column(name, overflow="fold", no_wrap=narrow, max_width=22 if name == "what" else None)
    for row in result.rows:
        # Trailing spaces are part of a text but invisible in a table, so equal values are not printed twice.
        actual = "the same" if row.ok and row.actual == row.expected else row.actual
        cells = [row.row, row.description, row.expected, actual, row.row_class, OK_LABELS[row.ok]]
        table.add_row(*(Text(visible(cell)) for cell in cells), style="red" if row.ok is False else "")
    console = result_console()
    console.print(table)
    lines = [
        "",
        *result.remarks,
        RULES[result.rule],
        f"{result.passed} results match and {result.failed} differ ({result.seconds:.0f} s). Plots: {out}",
    ]
    for line in lines:
        console.print(Text(visible(line)))
