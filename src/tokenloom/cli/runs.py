"""tokenloom runs: a table of runs, and where their configurations differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.aligned import aligned
from tokenloom.cli.output import print_json, print_notice, print_result
from tokenloom.cli.parameters import ARGUMENTS, OUTPUT, Json
from tokenloom.errors import UsageError
from tokenloom.reporting.formatting import compact, duration

if TYPE_CHECKING:
    from tokenloom.reporting.run_table import Difference, RunRow
    from tokenloom.run_folder import RunFolder

_COLUMNS = ("run", "state", "data", "size", "step", "epochs", "train loss", "val loss", "bits/byte", "time")
_TEXT_COLUMNS = 3  # aligned to the left


def runs(
    folder: Annotated[Path, Parameter(group=ARGUMENTS)] = Path("runs"),
    /,
    *,
    diff: Annotated[tuple[str, str] | None, Parameter(group=OUTPUT, negative="")] = None,
    json: Json = False,
) -> None:
    """List runs with their data, size, figures and state, the one that was started or resumed last first.

    A run is training, stale (training, but its next record is late), finished, stopped (it can be resumed) or diverged
    (its loss or its gradient was not finite).

    Parameters
    ----------
    folder
        Folder that contains runs, or a run.
    diff
        Names of two runs: list the settings in which they differ instead.
    """
    from tokenloom.reporting.run_table import find_runs, read_row
    from tokenloom.run_folder import RunFolder

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder. Name the folder of your runs, or train a model first.")
    found = find_runs(RunFolder(folder))
    if diff is not None:
        _print_differences(found, diff, json=json)
        return
    rows = [read_row(name, run, time.time()) for name, run in found.items()]
    if json:
        print_json({"runs": [row.to_json() for row in rows]})
        return
    print_result("\n".join(aligned([_COLUMNS, *map(_cells, rows)], _TEXT_COLUMNS)))
    for row in rows:
        if row.problem is not None:
            print_notice(row.problem)


def _print_differences(found: Mapping[str, RunFolder], names: tuple[str, str], *, json: bool) -> None:
    from tokenloom.reporting.run_table import find_differences

    for name in names:
        if name not in found:
            raise UsageError(f'there is no run "{name}". Choose two of: {", ".join(found) or "none"}.')
    differences = find_differences([found[name].config() for name in names])
    if json:
        print_json({"runs": names, "differences": [difference.to_json() for difference in differences]})
    else:
        print_result("\n".join(aligned([("setting", *names), *map(_difference_cells, differences)], text_columns=3)))


def _cells(row: RunRow) -> Sequence[str]:
    figures = row.figures
    steps = "-" if figures.steps is None else f"{figures.steps:,}"
    finished = row.max_steps is None or row.status.state == "finished"
    return (
        row.run,
        row.status.state,
        row.data or "-",
        _cell(row.parameters, compact),
        steps if finished else f"{steps} of {row.max_steps:,}",
        _cell(figures.epoch, lambda value: f"{value:.2f}"),
        _cell(figures.train_loss, lambda value: f"{value:.3f}"),
        _cell(figures.val_loss, lambda value: f"{value:.3f}"),
        _cell(figures.val_bits_per_byte, lambda value: f"{value:.4f}"),
        _cell(figures.seconds, duration),
    )


def _difference_cells(difference: Difference) -> Sequence[str]:
    return (difference.key, *("none" if value is None else str(value) for value in difference.values))


def _cell(value: float | None, text: Callable[[float], str]) -> str:
    return "-" if value is None else text(value)
