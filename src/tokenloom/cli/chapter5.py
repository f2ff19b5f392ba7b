"""tokenloom chapter5: the chapter's figures, one by one, beside ours."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

WORDS = {True: "yes", False: "NO", None: "-"}


def chapter5(
    *,
    quick: Annotated[bool, Parameter(negative="")] = False,
    out: Path = Path("chapter5"),
    device: str = "cpu",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Replay chapter 5 of the book on The Verdict and compare every figure; exit code 1 if one is off.

    The 90 training steps take about as long as the book's own: ten minutes on two cores.

    Parameters
    ----------
    quick
        All but the 90 training steps.
    out
        Folder of the plots.
    device
        cpu, where the random stream is the book's; on others the trained figures are compared as bands.
    json
        Print one JSON object on stdout; progress goes to stderr.
    """
    from tokenloom.book.replay import replay_chapter5

    result = replay_chapter5(
        quick=quick, out=out, device=device, tell=lambda line: print(line, file=sys.stderr, flush=True)
    )
    if json:
        print(json_format.dumps(result))
    else:
        _show(result, out)
    if result["failed"]:
        sys.exit(1)


def _show(result: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("row", "what", "expected", "got", "class", "ok"):
        narrow = name in ("row", "class", "ok")
        table.add_column(name, overflow="fold", no_wrap=narrow, max_width=22 if name == "what" else None)
    for row in result["rows"]:
        # Spaces at the end of a text are part of it, and a cell without them would hide a difference.
        got = "the same" if row["ok"] and row["got"] == row["expected"] else row["got"]
        cells = [row["row"], row["what"], row["expected"], got, row["class"], WORDS[row["ok"]]]
        table.add_row(*(Text(cell) for cell in cells), style="red" if row["ok"] is False else "")
    console = Console(highlight=False)
    console.print(table)
    rule = {
        "exact": "Rows of class R are compared exactly: Linux, x86-64, CPU.",
        "bands": "Rows of class R are not compared one by one here, only as bands: this is not Linux on an x86-64 CPU.",
    }
    lines = [
        "",
        *result["remarks"],
        rule[result["rule"]],
        f"{result['passed']} figures came out, {result['failed']} did not, in {result['seconds']:.0f} s. Plots: {out}",
    ]
    for line in lines:
        console.print(Text(line))
