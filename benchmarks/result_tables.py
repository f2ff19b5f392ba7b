"""Tables of benchmarks/RESULTS.md, from the results of measurements."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from recipe_series import RULE


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    columns = list(columns)
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def row_table(results: Sequence[dict], columns: dict[str, str]) -> list[str]:
    """A row for each result; `columns` are titles, and formats of the values by name."""
    return markdown(columns, [[cell.format(**result) for cell in columns.values()] for result in results])


def bench_table(
    results: Sequence[dict], metric: str, unit: str, digits: int = 0, lower_is_better: bool = False
) -> list[str]:
    """Outputs of `tokenloom bench`: medians and ranges of all, and ratios to the first implementation that ran."""
    rows: list[list[str]] = []
    reference = None
    for name in results[-1]["implementations"]:
        rounds = [result["implementations"][name] for result in results if name in result["implementations"]]
        repeats = [repeat for implementation in rounds for repeat in implementation["repeats"]]
        if not repeats:
            rows.append([name, rounds[-1]["problem"], "", "", ""])
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


def recipe_tables(runs: Iterable[dict]) -> list[str]:
    """A table of each series of benchmarks/recipe.py on each processor: medians over the seeds, best first.

    The distance is to the best variant that is not the rule. What the rule chose stands behind its name.
    """
    groups: dict[tuple[str, str], dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run["series"], run["cpu"]][run["variant"]].append(run)
    lines: list[str] = []
    for (series, cpu), variants in sorted(groups.items()):
        lines += ["", f"`{series}` ({cpu})", "", *_recipe_table(variants)]
    return lines


def _recipe_table(variants: dict[str, list[dict]]) -> list[str]:
    columns = ("val_bits_per_byte", "train_loss", "val_loss", "steps")
    medians = {
        variant: [statistics.median(run[column] for run in runs) for column in columns]
        for variant, runs in variants.items()
    }
    best = min((values[0] for variant, values in medians.items() if not variant.startswith(RULE)), default=None)
    rows: list[list[str]] = []
    for variant, (bits, train_loss, val_loss, steps) in sorted(medians.items(), key=lambda item: item[1]):
        runs = variants[variant]
        choices = dict.fromkeys(_settings(run) for run in runs if "n_layer" in run and variant.startswith(RULE))
        rows.append(
            [
                f"{variant}: {' or '.join(choices)}" if choices else variant,
                f"{bits:.3f}",
                f"{bits / best - 1:+.1%}" if best else "",
                f"{train_loss:.3f}",
                f"{val_loss:.3f}",
                f"{steps:,.0f}",
                str(len(runs)),
            ]
        )
    titles = ["variant", "bits per byte", "from the best", "training loss", "validation loss", "steps", "seeds"]
    return markdown(titles, rows)


def _settings(run: dict) -> str:
    """In the words of the names of variants: "3x192 bpe2048 b8x128 wd.18"."""
    shape = "{n_layer}x{n_embd} {tokenizer} b{batch_size}x{block_size}".format(**run).replace(":", "")
    return f"{shape} wd{run['weight_decay']:g}".replace("wd0.", "wd.")
