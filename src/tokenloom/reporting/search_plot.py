"""The plot of a hyper-parameter search: its trials over time, and their values against each setting."""
# matplotlib leaves **kwargs unannotated.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenloom.reporting.formatting import percent
from tokenloom.reporting.matplotlib_style import GRID, plot_style, save_figure
from tokenloom.reporting.series import BASELINE, TRAIN, VALIDATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FINISHED = "finished"
COLUMNS = 3
Setting = int | float | str | bool | None


@dataclass(frozen=True)
class PlottedTrial:
    """A trial of a search."""

    number: int
    value: float | None
    """Bits per byte on the validation text; of its last evaluation if the trial is not finished."""
    state: str
    settings: Mapping[str, Setting]


def plot_search(
    trials: Sequence[PlottedTrial], logarithmic: Mapping[str, bool], importance: Mapping[str, float], path: Path
) -> None:
    """Plot trials over time with the best value so far, and the value against each setting in `logarithmic`.

    `importance` has shares by `section.field`, which titles show. `path` ends in .svg, .png or .pdf.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    measured = [trial for trial in trials if trial.value is not None]
    columns = max(1, min(COLUMNS, len(logarithmic)))
    rows = -(-len(logarithmic) // columns)
    shares = {key.replace("_", "-"): share for key, share in importance.items()}
    with plot_style():
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(9, 3.4 + 2.9 * rows), dpi=160, layout=layout)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.2, *[1] * rows])
        trials_axes = figure.add_subplot(grid[0, :])
        _draw_trials(trials_axes, measured)
        for position, (name, is_logarithmic) in enumerate(logarithmic.items()):
            axes = figure.add_subplot(grid[1 + position // columns, position % columns], sharey=trials_axes)
            _draw_setting(axes, measured, name, is_logarithmic=is_logarithmic)
            share = f"\nimportance {percent(shares[name])}" if name in shares else ""
            axes.set_title(f"{name}{share}", loc="left", fontsize=10)
            if position % columns == 0:
                axes.set_ylabel("bits per byte")
            else:
                axes.tick_params(labelleft=False)
        save_figure(figure, path)


def _draw_trials(axes: Axes, trials: Sequence[PlottedTrial]) -> None:
    from matplotlib.ticker import MaxNLocator

    _frame(axes)
    axes.set_xlabel("trial")
    axes.set_ylabel("bits per byte")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finished = [trial for trial in trials if trial.state == FINISHED]
    others = [trial for trial in trials if trial.state != FINISHED]
    if not trials:
        axes.text(0.5, 0.5, "no trial evaluated yet", transform=axes.transAxes, ha="center", va="center")
        return
    if finished:
        best = list(itertools.accumulate((_value(trial) for trial in finished), min))
        numbers = [trial.number for trial in finished]
        axes.step(numbers, best, where="post", color=VALIDATION, linewidth=1.9, label="best so far")
        axes.scatter(numbers, list(map(_value, finished)), color=TRAIN, zorder=3, label="finished")
    if others:
        numbers = [trial.number for trial in others]
        label = "pruned or stopped, last evaluation"
        axes.scatter(numbers, list(map(_value, others)), color=BASELINE, marker="x", zorder=3, label=label)
    axes.legend(frameon=False, fontsize=10, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))


def _draw_setting(axes: Axes, trials: Sequence[PlottedTrial], name: str, *, is_logarithmic: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    _frame(axes)
    axes.margins(x=0.12)
    known = [trial for trial in trials if name in trial.settings]
    values = [trial.settings[name] for trial in known]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):  # names, at equal distances
        texts = ["none" if value is None else str(value) for value in values]
        labels = sorted(set(texts))
        numbers = [labels.index(text) for text in texts]
        axes.set_xticks(range(len(labels)), labels)
    elif is_logarithmic and numbers:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(_short_tick))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=all(isinstance(value, int) for value in numbers)))
    for is_finished, color, marker in ((True, TRAIN, "o"), (False, BASELINE, "x")):
        chosen = [place for place, trial in enumerate(known) if (trial.state == FINISHED) == is_finished]
        if chosen:
            x, y = [numbers[place] for place in chosen], [_value(known[place]) for place in chosen]
            axes.scatter(x, y, color=color, marker=marker, zorder=3)


def _short_tick(value: float, _: int | None) -> str:
    return f"{value:g}"


def _frame(axes: Axes) -> None:
    axes.spines[["right", "top"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)


def _value(trial: PlottedTrial) -> float:
    assert trial.value is not None
    return trial.value
