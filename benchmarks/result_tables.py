"""Tables of benchmarks/RESULTS.md, from the results of measurements."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    columns = list(columns)
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def row_table(results: Sequence[dict], columns: dict[str, str]) -> list[str]:
    """A row for each result; `columns` are titles, and formats of the values by name."""
    return markdown(columns, [[cell.format(**result) for cell in columns.values()] for result in results])


def bench_table(
    results: Sequence[dict], metric: str, unit: str, digits: int = 0, lower_is_better: bool = False
) -> list[str]:
    """The newest output of `tokenloom bench`: medians, ranges, and ratios to the first implementation that ran."""
    rows: list[list[str]] = []
    reference = None
    for name, implementation in results[-1]["implementations"].items():
        repeats = implementation["repeats"]
        if not repeats:
            rows.append([name, implementation["problem"], "", "", ""])
            continue
        values = [repeat[metric] for repeat in repeats]
        value, peak = statistics.median(values), statistics.median(repeat["peak_mb"] for repeat in repeats)
        reference = reference or (value, peak)
        ratio = reference[0] / value if lower_is_better else value / reference[0]
        spread = f"{min(values):,.{digits}f} to {max(values):,.{digits}f}"
        memory = f"{peak:,.0f} MB ({peak / reference[1]:.2f})"
        rows.append([name, f"{value:,.{digits}f}", spread, f"{ratio:.2f}", memory])
    return markdown(["", unit, "range", "times as fast", "peak memory (ratio)"], rows)


def page_table(results: Sequence[dict]) -> list[str]:
    """Medians and 95th percentiles of all rounds of benchmarks/page.py, next to their goals."""
    values: dict[str, list[float]] = defaultdict(list)
    described: dict[str, dict] = {}
    for row in (row for result in results for row in result["rows"]):
        values[row["what"]] += row["values"]
        described[row["what"]] = row
    rows: list[list[str]] = []
    for what, found in values.items():
        high = sorted(found)[math.ceil(0.95 * len(found)) - 1]
        unit, limit = described[what]["unit"], described[what]["limit"]
        rows.append([what, f"{statistics.median(found):,.1f} {unit}", f"{high:,.1f} {unit}", f"{limit:,.0f} {unit}"])
    return markdown(["", "median", "95th percentile", "goal, at most"], rows)
