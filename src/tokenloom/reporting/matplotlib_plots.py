"""The plots of chapter 5 as PNG and PDF files: losses, and the effect of the temperature."""
# matplotlib leaves **kwargs unannotated.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.reporting.formatting import compact
from tokenloom.reporting.matplotlib_style import GRID, plot_style, save_figure
from tokenloom.reporting.series import (
    BASELINE,
    TRAIN,
    VALIDATION,
    Point,
    downsample,
    lowest,
    part_note,
    read_series,
    tokens_per_epoch,
)
from tokenloom.run_records import Baselines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = (TRAIN, "#9aa5b1", VALIDATION)


def plot_losses(
    records: Sequence[MetricsRecord],
    paths: Iterable[Path],
    *,
    baselines: Baselines | None = None,
    title: str | None = None,
) -> None:
    """Plot training and validation loss over epochs (bottom axis) and tokens seen (top axis) (section 5.2).

    `paths` end in .png or .pdf and are replaced atomically; the same records give the same bytes.
    """
    with plot_style():
        figure = _losses_figure(records, baselines, title)
        for path in paths:
            save_figure(figure, Path(path))


def plot_temperatures(
    words: Sequence[str], probabilities: Mapping[float, Sequence[float]], paths: Iterable[Path]
) -> None:
    """Plot the probability of each word at each temperature as grouped bars (section 5.3.1)."""
    with plot_style():
        figure, axes = _figure()
        width = 0.8 / len(probabilities)
        for i, (temperature, heights) in enumerate(probabilities.items()):
            offset = (i - (len(probabilities) - 1) / 2) * width
            axes.bar(
                [word + offset for word in range(len(words))],
                heights,
                width,
                label=f"temperature {temperature:g}",
                color=_BARS[i % len(_BARS)],
            )
        axes.set_xticks(range(len(words)), words, rotation=45, ha="right")
        axes.set_ylabel("probability")
        axes.spines[["right", "top"]].set_visible(False)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.legend(frameon=False, fontsize=10)
        for path in paths:
            save_figure(figure, Path(path))


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12)
    figure = Figure(figsize=(7.6, 4.7), dpi=160, layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _losses_figure(records: Sequence[MetricsRecord], baselines: Baselines | None, title: str | None) -> Figure:
    figure, axes = _figure()
    train, val = (read_series(records, METRICS[field]) for field in ("train_loss", "val_loss"))
    part = part_note(records)
    _draw_losses(axes, train, val, f"validation{part} of the text" if part else "validation")
    unigram = baselines.unigram_nats_per_token if baselines else None
    if unigram is not None:
        axes.axhline(unigram, color=BASELINE, linestyle=":", linewidth=1.6, label=f"unigram entropy {unigram:.2f}")
    axes.set_ylabel("loss (nats per token)")
    axes.spines[["right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    _scale_epochs(axes, train + val)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=10, handlelength=2.8)
    else:
        axes.text(0.5, 0.5, "no loss recorded yet", transform=axes.transAxes, ha="center", va="center")
    if title:
        line = " ".join(title.encode("utf-8", "replace").decode("utf-8").split())
        line = line if len(line) <= 64 else f"{line[:63]}…"
        axes.set_title(line, loc="left", fontsize=12, fontweight="bold", pad=10)
    return figure


def _draw_losses(axes: Axes, train: list[Point], val: list[Point], validation: str) -> None:
    train_buckets, val_buckets, best = downsample(train, 300), downsample(val, 300), lowest(val)
    if train:
        epochs = [bucket.epoch for bucket in train_buckets]
        low, high = [bucket.low for bucket in train_buckets], [bucket.high for bucket in train_buckets]
        axes.fill_between(epochs, low, high, color=TRAIN, alpha=0.15, lw=0)
        marker = "o" if len(train_buckets) == 1 else None  # a line through one point is invisible
        values = [bucket.value for bucket in train_buckets]
        axes.plot(epochs, values, color=TRAIN, linewidth=1.9, label="training", marker=marker, markersize=5)
    if best:
        marker = "o" if len(val_buckets) <= 40 else None
        epochs, values = [bucket.epoch for bucket in val_buckets], [bucket.value for bucket in val_buckets]
        axes.plot(
            epochs,
            values,
            color=VALIDATION,
            linewidth=2.1,
            linestyle="-.",
            label=validation,
            marker=marker,
            markersize=3.5,
        )
        axes.plot(
            [best.epoch],
            [best.value],
            marker="o",
            linestyle="none",
            label=f"best validation, {best.value:.3f} at step {best.step:,}",
            zorder=5,
            markersize=10,
            markerfacecolor="none",
            markeredgewidth=1.8,
            markeredgecolor="#222222",
        )


def _scale_epochs(axes: Axes, points: list[Point]) -> None:
    """Epochs on the bottom axis, with whole numbers if there are several; tokens seen on the top axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel("epochs")
    last = max((point.epoch for point in points), default=0.0)
    axes.set_xlim(-0.02 * (last or 1.0), 1.02 * (last or 1.0))
    if last > 1:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    per_epoch = tokens_per_epoch(points)
    if per_epoch is None:
        axes.spines["top"].set_visible(False)
        return
    top = axes.secondary_xaxis("top", functions=_scaling_by(per_epoch))
    top.set_xlabel("tokens seen", labelpad=6)
    top.xaxis.set_major_locator(MaxNLocator(nbins=7))
    top.xaxis.set_major_formatter(FuncFormatter(_compact_tick))


def _compact_tick(value: float, _: int | None) -> str:
    return compact(value)


def _scaling_by(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Multiplication of an array by a factor, and its inverse."""

    def multiply(values: Any) -> Any:
        return values * factor

    def divide(values: Any) -> Any:
        return values / factor

    return multiply, divide
