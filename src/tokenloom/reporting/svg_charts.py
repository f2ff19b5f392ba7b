"""Charts of a run's metrics as SVG elements for a page.

Colors are CSS variables (`--train`, `--val`, `--base`, `--ink`, `--soft`, `--line`), so that the charts follow the
light or dark theme of the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from tokenloom.metrics import METRICS, Metric, MetricsRecord
from tokenloom.reporting.formatting import compact
from tokenloom.reporting.messages import bits_per_byte_levels
from tokenloom.reporting.series import (
    BASELINE,
    TRAIN,
    VALIDATION,
    Bucket,
    Point,
    downsample,
    lowest,
    part_note,
    read_series,
    tokens_per_epoch,
)
from tokenloom.run_records import Baselines

Role = Literal["train", "val", "base"]
LINE_POINTS = 240
MARKS = 60
VISIBLE_MARKS = 40
LABEL_GAP = 16
LABEL_SPACE = 12  # between a line and its label
LABEL_CHARACTER = 8  # the width of a character, in the widest of the fonts that a system may have
_COLORS: dict[Role, str] = {"train": TRAIN, "val": VALIDATION, "base": BASELINE}


def losses_svg(
    records: Sequence[MetricsRecord], *, baselines: Baselines | None = None, width: int = 940, height: int = 360
) -> str:
    """Training and validation loss over epochs and tokens seen; empty if no loss was recorded."""
    train, val = (read_series(records, METRICS[field]) for field in ("train_loss", "val_loss"))
    unigram = baselines.unigram_nats_per_token if baselines else None
    levels = {"unigram": unigram} if unigram is not None else {}
    part = part_note(records)
    series: dict[Role, list[Point]] = {"train": train, "val": val}
    parts_of = {"train": "", "val": part}
    labels = [
        _EndLabel(points[-1].value, f"{role} {points[-1].value:.3f}{parts_of[role]}", role)
        for role, points in series.items()
        if points
    ]
    labels += _level_labels(levels)
    frame = _frame([train, val], levels.values(), "epoch", width, height, top=38, right=_room(labels))
    if frame is None:
        return ""
    parts = [_grid(frame), _axis_below(frame, "epoch", whole=frame.last > 1), _axis_above(frame, train + val)]
    parts += [_level(frame, value) for value in levels.values()]
    parts += [_band(frame, train), _line(frame, train, "train"), _line(frame, val, "val"), _marks(frame, val, "nats")]
    parts.append(_end_labels(frame, labels))
    return _svg(frame, "Training and validation loss in nats per token over epochs", parts)


def bits_per_byte_svg(
    records: Sequence[MetricsRecord], *, baselines: Baselines | None = None, width: int = 460, height: int = 250
) -> str:
    """Validation bits per byte over steps, with those of the baselines; empty if it was not recorded."""
    val = read_series(records, METRICS["val_bits_per_byte"])
    levels = bits_per_byte_levels(baselines)
    if not val:
        return ""
    labels = [_EndLabel(val[-1].value, f"model {val[-1].value:.2f}{part_note(records)}", "val")]
    labels += _level_labels(levels)
    frame = _frame([val], levels.values(), "step", width, height, right=_room(labels))
    if frame is None:
        return ""
    parts = [_grid(frame), _axis_below(frame, "step", whole=True)]
    parts += [_level(frame, value) for value in levels.values()]
    parts += [_line(frame, val, "val"), _marks(frame, val, "bits per byte")]
    parts.append(_end_labels(frame, labels))
    return _svg(frame, "Bits per byte of the validation text over steps", parts)


def metric_svg(records: Sequence[MetricsRecord], metric: Metric, *, width: int = 460, height: int = 250) -> str:
    """One metric over steps; empty if it was not recorded."""
    points = read_series(records, metric)
    frame = _frame([points], [0.0], "step", width, height, right=16)
    if frame is None or not points:
        return ""
    parts = [_grid(frame), _axis_below(frame, "step", whole=True), _band(frame, points), _line(frame, points, "train")]
    return _svg(frame, f"{metric.label} over steps", parts)


@dataclass(frozen=True)
class _Frame:
    """The scales of a chart of `width` × `height` pixels."""

    width: int
    height: int
    x_axis: Literal["epoch", "step"]
    last: float
    """The horizontal axis goes from 0 to this value."""
    y_ticks: list[float]
    left: int = 48
    right: int = 110
    top: int = 14
    bottom: int = 44

    def x(self, value: float) -> float:
        return self.left + value / self.last * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.top + (high - value) / (high - low) * (self.height - self.top - self.bottom)

    def position(self, point: Point | Bucket) -> float:
        """The pixel of a point on the horizontal axis."""
        return self.x(point.epoch if self.x_axis == "epoch" else point.step)

    def coordinates(self, point: Point | Bucket, value: float) -> str:
        return f"{self.position(point):.1f},{self.y(value):.1f}"


@dataclass(frozen=True)
class _EndLabel:
    """The label of a line, placed at its right end."""

    value: float
    text: str
    role: Role


def _frame(
    series: list[list[Point]],
    levels: Iterable[float],
    x_axis: Literal["epoch", "step"],
    width: int,
    height: int,
    **margins: int,
) -> _Frame | None:
    """Scales that fit all series and levels; None without a point."""
    points = [point for points in series for point in points]
    if not points:
        return None
    values = [point.value for point in points] + list(levels)
    last = max(point.epoch if x_axis == "epoch" else point.step for point in points) or 1.0
    low, high = min(values), max(values)
    ticks = _ticks(low, high, 5) if high > low else _ticks(low - 1, low + 1, 4)
    step = ticks[1] - ticks[0]
    ticks = ([ticks[0] - step] if low < ticks[0] else []) + ticks + ([ticks[-1] + step] if high > ticks[-1] else [])
    return _Frame(width, height, x_axis, last, ticks, **margins)


def _ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers between `low` and `high`; whole ones if `whole`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, step) if whole else step
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _tick_label(value: float) -> str:
    if abs(value) >= 1000:
        return compact(value)
    label = f"{value:.4g}"
    return label if len(label) <= 5 else f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")


def _grid(frame: _Frame) -> str:
    """Horizontal lines at round values, with their labels."""
    end = frame.width - frame.right
    return "".join(
        f'<path d="M{frame.left} {frame.y(value):.1f}H{end}" style="stroke:var(--line,#e2e2e2)"/>'
        + _text(frame.left - 8, frame.y(value) + 4, _tick_label(value), "end")
        for value in frame.y_ticks
    )


def _axis_below(frame: _Frame, label: str, *, whole: bool) -> str:
    base, end = frame.height - frame.bottom, frame.width - frame.right
    count = max(2, (end - frame.left) // 50)
    parts = [f'<path d="M{frame.left} {base}H{end}" style="stroke:var(--soft,#666)"/>']
    parts += [_tick(frame.x(value), base, 4, value) for value in _ticks(0, frame.last, count, whole=whole)]
    return "".join(parts) + _text((frame.left + end) / 2, base + 36, label, "middle")


def _axis_above(frame: _Frame, points: list[Point]) -> str:
    per_epoch = tokens_per_epoch(points)
    if per_epoch is None:
        return ""
    end = frame.width - frame.right
    parts = [f'<path d="M{frame.left} {frame.top}H{end}" style="stroke:var(--soft,#666)"/>']
    parts += [
        _tick(frame.x(value / per_epoch), frame.top, -4, value)
        for value in _ticks(0, frame.last * per_epoch, max(2, (end - frame.left) // 60))
    ]
    return "".join(parts) + _text(end + 12, frame.top - 9, "tokens seen", "start")


def _tick(x: float, y: float, length: int, value: float) -> str:
    label = _text(x, y + (18 if length > 0 else -9), _tick_label(value), "middle")
    return f'<path d="M{x:.1f} {y}v{length}" style="stroke:var(--soft,#666)"/>{label}'


def _line(frame: _Frame, points: list[Point], role: Role) -> str:
    """The line through a series; a single point is drawn as a dot."""
    style = f"stroke:{_color(role)};stroke-width:2.2;fill:none;stroke-linejoin:round"
    if role == "val":
        style += ";stroke-dasharray:9 3 2 3"
    buckets = downsample(points, LINE_POINTS)
    if len(buckets) == 1:
        x, y = frame.position(buckets[0]), frame.y(buckets[0].value)
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{_color(role)}"/>'
    coordinates = " ".join(frame.coordinates(bucket, bucket.value) for bucket in buckets)
    return f'<polyline points="{coordinates}" style="{style}"/>' if buckets else ""


def _band(frame: _Frame, points: list[Point]) -> str:
    """The range of values in each bucket, if the series was downsampled."""
    buckets = downsample(points, LINE_POINTS)
    if len(buckets) == len(points):
        return ""
    outline = [frame.coordinates(bucket, bucket.high) for bucket in buckets]
    outline += [frame.coordinates(bucket, bucket.low) for bucket in reversed(buckets)]
    return f'<polygon points="{" ".join(outline)}" style="fill:{_color("train")};opacity:.18"/>'


def _marks(frame: _Frame, points: list[Point], unit: str) -> str:
    """A ring around the best value, and a dot with a tooltip for each evaluation, at most `MARKS` of them."""
    best = lowest(points)
    stride = max(1, math.ceil(len(points) / MARKS))
    # Many dots would hide the line; transparent ones still have their tooltips.
    fill = _color("val") if len(points) <= VISIBLE_MARKS else "transparent"
    dots = [
        f'<circle cx="{frame.position(point):.1f}" cy="{frame.y(point.value):.1f}" r="2.6" '
        f'style="fill:{fill};stroke:transparent;stroke-width:12">'
        f"<title>step {point.step:,}: {point.value:.3f} {unit}</title></circle>"
        for point in points[::stride]
    ]
    if best:
        dots.append(
            f'<circle cx="{frame.position(best):.1f}" cy="{frame.y(best.value):.1f}" r="6.5" '
            'style="fill:none;stroke:var(--ink,#222);stroke-width:1.8">'
            f"<title>best, step {best.step:,}: {best.value:.3f} {unit}</title></circle>"
        )
    return "".join(dots)


def _level(frame: _Frame, value: float) -> str:
    style = f"stroke:{_color('base')};stroke-width:1.6;stroke-dasharray:2 4"
    return f'<path d="M{frame.left} {frame.y(value):.1f}H{frame.width - frame.right}" style="{style}"/>'


def _level_labels(levels: Mapping[str, float]) -> list[_EndLabel]:
    return [_EndLabel(value, f"{name} {value:.2f}", "base") for name, value in levels.items()]


def _end_labels(frame: _Frame, labels: list[_EndLabel]) -> str:
    """Labels at the right end of their lines, moved apart where they would overlap."""
    heights = [frame.y(label.value) for label in labels]
    heights = _spread(heights, LABEL_GAP, frame.top + 2, frame.height - frame.bottom - 4)
    x = frame.width - frame.right + LABEL_SPACE
    return "".join(
        f'<text x="{x}" y="{y + 4:.1f}" style="fill:{_color(label.role)};font-weight:600">{escape(label.text)}</text>'
        for label, y in zip(labels, heights, strict=True)
    )


def _room(labels: Iterable[_EndLabel]) -> int:
    """The margin that the longest label needs on the right."""
    return LABEL_SPACE + LABEL_CHARACTER * max((len(label.text) for label in labels), default=0)


def _spread(heights: list[float], gap: float, top: float, bottom: float) -> list[float]:
    """Heights moved as little as possible so that neighbors are at least `gap` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    spread = list(heights)
    minimum = top
    for index in order:
        spread[index] = max(spread[index], minimum)
        minimum = spread[index] + gap
    maximum = bottom
    for index in reversed(order):
        spread[index] = min(spread[index], maximum)
        maximum = spread[index] - gap
    return spread


def _color(role: Role) -> str:
    return f"var(--{role},{_COLORS[role]})"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(frame: _Frame, label: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(label)}" style="fill:var(--soft,#666);font:12.5px system-ui,sans-serif">'
        f"{''.join(parts)}</svg>"
    )
