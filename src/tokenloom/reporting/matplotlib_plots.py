"""The plots of chapter 5 as PNG and PDF: losses, and what the temperature does."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenloom.reporting.files import write_whole
from tokenloom.reporting.messages import compact
from tokenloom.reporting.series import (
    BASELINE,
    TRAIN,
    VALIDATION,
    Point,
    Record,
    best,
    curve,
    known_levels,
    thin,
    tokens_per_epoch,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.axisbelow": True,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "text.color": "#222222",
    "text.parse_math": False,
    "pdf.fonttype": 42,
}
_BARS = (TRAIN, "#9aa5b1", VALIDATION)
# Every metadata field that tells the time or the maker is left out: the same run gives the same bytes.
_METADATA = {".png": {"Software": None}, ".pdf": {"CreationDate": None}}


def plot_losses(
    records: Iterable[Record],
    paths: Iterable[Path],
    *,
    baselines: Mapping[str, float | None] | None = None,
    title: str | None = None,
) -> None:
    """Draw training and validation loss over epochs (below) and tokens seen (above) (section 5.2).

    Each of `paths` ends in .png or .pdf and is replaced in one move; the same records give the same bytes.
    """
    with _style():
        figure = _losses_figure(list(records), baselines or {}, title)
        for path in paths:
            _save(figure, Path(path))


def plot_temperatures(words: Sequence[str], chances: Mapping[float, Sequence[float]], paths: Iterable[Path]) -> None:
    """Draw the probability of each word at each temperature, side by side (section 5.3.1); paths as above."""
    with _style():
        figure, axes = _figure()
        width = 0.8 / len(chances)
        for i, (temperature, heights) in enumerate(chances.items()):
            places = [place + (i - (len(chances) - 1) / 2) * width for place in range(len(words))]
            axes.bar(places, heights, width, label=f"temperature {temperature:g}", color=_BARS[i % len(_BARS)])
        axes.set_xticks(range(len(words)), words, rotation=45, ha="right")
        axes.set_ylabel("probability")
        axes.spines[["right", "top"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.legend(frameon=False, fontsize=10)
        for path in paths:
            _save(figure, Path(path))


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context(), warnings.catch_warnings():
        rcdefaults()  # Somebody's matplotlibrc must not change what the same records give.
        rcParams.update(_STYLE)
        # A title in a script that the font lacks is drawn with boxes, which is no reason to bother anyone.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.12)
    figure = Figure(figsize=(7.6, 4.7), dpi=160, layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _losses_figure(records: list[Record], baselines: Mapping[str, float | None], title: str | None) -> Figure:
    figure, axes = _figure()
    train, val = curve(records, "train/loss"), curve(records, "val/loss")
    _draw_losses(axes, train, val)
    for name, value in known_levels(baselines, {"unigram_nats_per_token": "unigram entropy"}).items():
        axes.axhline(value, color=BASELINE, linestyle=":", linewidth=1.6, label=f"{name} {value:.2f}")
    axes.set_ylabel("loss (nats per token)")
    axes.spines[["right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    _scale_epochs(axes, train + val)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=10, handlelength=2.8)
    else:
        axes.text(0.5, 0.5, "no loss recorded yet", transform=axes.transAxes, ha="center", va="center")
    if title:
        shown = " ".join(title.encode("utf-8", "replace").decode("utf-8").split())
        shown = shown if len(shown) <= 64 else f"{shown[:63]}…"
        axes.set_title(shown, loc="left", fontsize=12, fontweight="bold", pad=10)
    return figure


def _draw_losses(axes: Axes, train: list[Point], val: list[Point]) -> None:
    trained, evaluated, lowest = thin(train, 300), thin(val, 300), best(val)
    if train:
        epochs = [bucket.epoch for bucket in trained]
        axes.fill_between(epochs, [b.low for b in trained], [b.high for b in trained], color=TRAIN, alpha=0.15, lw=0)
        only = {"marker": "o", "markersize": 5} if len(trained) == 1 else {}
        axes.plot(epochs, [b.value for b in trained], color=TRAIN, linewidth=1.9, label="training", **only)
    if lowest:
        few = {"marker": "o", "markersize": 3.5} if len(evaluated) <= 40 else {}
        xs, ys = [bucket.epoch for bucket in evaluated], [bucket.value for bucket in evaluated]
        axes.plot(xs, ys, color=VALIDATION, linewidth=2.1, linestyle="-.", label="validation", **few)
        ring = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.8, "markeredgecolor": "#222222"}
        label = f"best validation, {lowest.value:.3f} at step {lowest.step:,}"
        axes.plot([lowest.epoch], [lowest.value], marker="o", linestyle="none", label=label, zorder=5, **ring)


def _scale_epochs(axes: Axes, points: list[Point]) -> None:
    """Epochs below, whole numbers where there are several; the tokens that they stand for above."""
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
    above = axes.secondary_xaxis("top", functions=_scaling_by(per_epoch))
    above.set_xlabel("tokens seen", labelpad=6)
    above.xaxis.set_major_locator(MaxNLocator(nbins=7))
    above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def _scaling_by(factor: float) -> tuple[Any, Any]:
    return (lambda value: value * factor), (lambda value: value / factor)


def _save(figure: Figure, path: Path) -> None:
    drawn = BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], metadata=_METADATA.get(path.suffix, {}))
    write_whole(path, drawn.getvalue())
