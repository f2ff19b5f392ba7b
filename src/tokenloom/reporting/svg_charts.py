"""Curves of a run as SVG elements for a page.

Colours are CSS variables (`--train`, `--val`, `--base`, `--ink`, `--soft`, `--line`), so that a page can follow the
reader's light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from tokenloom.reporting.messages import BITS_BASELINES, compact
from tokenloom.reporting.series import (
    BASELINE,
    TRAIN,
    VALIDATION,
    Bucket,
    Point,
    Record,
    best,
    curve,
    known_levels,
    thin,
    tokens_per_epoch,
)


def losses_svg(
    records: Iterable[Record],
    *,
    baselines: Mapping[str, float | None] | None = None,
    width: int = 940,
    height: int = 360,
) -> str:
    """The loss plot as an SVG element; empty if no loss was recorded.

    Colours are CSS variables (`--train`, `--val`, `--base`, `--ink`, `--soft`, `--line`), so that a page can follow
    the reader's light or dark theme.
    """
    records = list(records)
    train, val = curve(records, "train/loss"), curve(records, "val/loss")
    curves = {"train": train, "val": val}
    levels = known_levels(baselines, {"unigram_nats_per_token": "unigram"})
    frame = _frame([train, val], levels.values(), "epoch", width, height, top=38)
    if frame is None:
        return ""
    parts = [_grid(frame), _axis_below(frame, "epoch", whole=frame.last > 1), _axis_above(frame, train + val)]
    parts += [_level(frame, value) for value in levels.values()]
    parts += [_band(frame, train), _line(frame, train, "train"), _line(frame, val, "val"), _marks(frame, val, "nats")]
    ends = [(points[-1].value, f"{name} {points[-1].value:.3f}", name) for name, points in curves.items() if points]
    parts.append(_end_labels(frame, ends + _level_labels(levels)))
    return _svg(frame, "Training and validation loss in nats per token over epochs", parts)


def bits_per_byte_svg(
    records: Iterable[Record],
    *,
    baselines: Mapping[str, float | None] | None = None,
    width: int = 460,
    height: int = 250,
) -> str:
    """Bits per byte of the validation text over steps, beside what compressors and letter counts need."""
    val = curve(records, "val/bits_per_byte")
    levels = known_levels(baselines, BITS_BASELINES)
    frame = _frame([val], levels.values(), "step", width, height)
    if frame is None or not val:
        return ""
    parts = [_grid(frame), _axis_below(frame, "step", whole=True)]
    parts += [_level(frame, value) for value in levels.values()]
    parts += [_line(frame, val, "val"), _marks(frame, val, "bits per byte")]
    ends = [(val[-1].value, f"model {val[-1].value:.2f}", "val")]
    parts.append(_end_labels(frame, ends + _level_labels(levels)))
    return _svg(frame, "Bits per byte of the validation text over steps", parts)


def curve_svg(records: Iterable[Record], key: str, label: str, *, width: int = 460, height: int = 250) -> str:
    """One recorded quantity (`lr`, `grad_norm`, `tokens_per_sec`) over steps; empty if it was never recorded."""
    points = curve(records, key)
    frame = _frame([points], [0.0], "step", width, height, right=16)
    if frame is None or not points:
        return ""
    parts = [_grid(frame), _axis_below(frame, "step", whole=True), _band(frame, points), _line(frame, points, "train")]
    return _svg(frame, f"{label} over steps", parts)


@dataclass(frozen=True)
class _Frame:
    """Where values lie on a drawing of `width` × `height` pixels."""

    width: int
    height: int
    along: str  # the horizontal quantity: "epoch" or "step"
    last: float  # the horizontal axis goes from 0 to here
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

    def place(self, point: Point | Bucket, value: float) -> str:
        return f"{self.x(getattr(point, self.along)):.1f},{self.y(value):.1f}"


def _frame(
    curves: list[list[Point]],
    levels: Iterable[float],
    along: str,
    width: int,
    height: int,
    **margins: int,
) -> _Frame | None:
    """Scales that hold all curves and levels; none if there is nothing to draw."""
    points = [point for points in curves for point in points]
    if not points:
        return None
    values = [point.value for point in points] + list(levels)
    last = max(float(getattr(point, along)) for point in points) or 1.0
    low, high = min(values), max(values)
    ticks = _ticks(low, high, 5) if high > low else _ticks(low - 1, low + 1, 4)
    step = ticks[1] - ticks[0]
    ticks = ([ticks[0] - step] if low < ticks[0] else []) + ticks + ([ticks[-1] + step] if high > ticks[-1] else [])
    return _Frame(width, height, along, last, ticks, **margins)


def _ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them and at least two if the range allows."""
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


def _line(frame: _Frame, points: list[Point], role: str) -> str:
    """The curve itself; a single point is a dot."""
    style = f"stroke:{_colour(role)};stroke-width:2.2;fill:none;stroke-linejoin:round"
    if role == "val":
        style += ";stroke-dasharray:9 3 2 3"
    places = [frame.place(bucket, bucket.value) for bucket in thin(points, 240)]
    if len(places) == 1:
        x, y = places[0].split(",")
        return f'<circle cx="{x}" cy="{y}" r="4" style="fill:{_colour(role)}"/>'
    return f'<polyline points="{" ".join(places)}" style="{style}"/>' if places else ""


def _band(frame: _Frame, points: list[Point]) -> str:
    """From the least to the greatest value of each bucket, where points had to be drawn together."""
    buckets = thin(points, 240)
    if len(buckets) == len(points):
        return ""
    outline = [frame.place(bucket, bucket.high) for bucket in buckets]
    outline += [frame.place(bucket, bucket.low) for bucket in reversed(buckets)]
    return f'<polygon points="{" ".join(outline)}" style="fill:{_colour("train")};opacity:.18"/>'


def _marks(frame: _Frame, points: list[Point], unit: str) -> str:
    """A ring around the best value, and a dot for each evaluation that tells its figures under the pointer."""
    lowest = best(points)
    every = max(1, math.ceil(len(points) / 60))
    shown = _colour("val") if len(points) <= 40 else "transparent"
    dots = [
        f'<circle cx="{frame.x(getattr(point, frame.along)):.1f}" cy="{frame.y(point.value):.1f}" r="2.6" '
        f'style="fill:{shown};stroke:transparent;stroke-width:12">'
        f"<title>step {point.step:,}: {point.value:.3f} {unit}</title></circle>"
        for point in points[::every]
    ]
    if lowest:
        dots.append(
            f'<circle cx="{frame.x(getattr(lowest, frame.along)):.1f}" cy="{frame.y(lowest.value):.1f}" r="6.5" '
            'style="fill:none;stroke:var(--ink,#222);stroke-width:1.8">'
            f"<title>best, step {lowest.step:,}: {lowest.value:.3f} {unit}</title></circle>"
        )
    return "".join(dots)


def _level(frame: _Frame, value: float) -> str:
    style = f"stroke:{_colour('base')};stroke-width:1.6;stroke-dasharray:2 4"
    return f'<path d="M{frame.left} {frame.y(value):.1f}H{frame.width - frame.right}" style="{style}"/>'


def _level_labels(levels: Mapping[str, float]) -> list[tuple[float, str, str]]:
    return [(value, f"{name} {value:.2f}", "base") for name, value in levels.items()]


def _end_labels(frame: _Frame, ends: list[tuple[float, str, str]]) -> str:
    """What each line is, at its right end: (value, label, colour), moved apart where labels would touch."""
    heights = _spread([frame.y(value) for value, _, _ in ends], 16, frame.top + 2, frame.height - frame.bottom - 4)
    x = frame.width - frame.right + 12
    return "".join(
        f'<text x="{x}" y="{y + 4:.1f}" style="fill:{_colour(role)};font-weight:600">{escape(label)}</text>'
        for (_, label, role), y in zip(ends, heights, strict=True)
    )


def _spread(wanted: list[float], gap: float, top: float, bottom: float) -> list[float]:
    """Places as near to the wanted ones as a gap between neighbours allows."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = list(wanted)
    least = top
    for index in order:
        placed[index] = max(placed[index], least)
        least = placed[index] + gap
    greatest = bottom
    for index in reversed(order):
        placed[index] = min(placed[index], greatest)
        greatest = placed[index] - gap
    return placed


def _colour(role: str) -> str:
    return f"var(--{role},{ {'train': TRAIN, 'val': VALIDATION, 'base': BASELINE}[role] })"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(frame: _Frame, label: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(label)}" style="fill:var(--soft,#666);font:12.5px system-ui,sans-serif">'
        f"{''.join(parts)}</svg>"
    )
