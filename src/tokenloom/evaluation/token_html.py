"""The results of `inspect` and `compare` as HTML for notebooks: the text, colored as on the page of `serve`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING

from tokenloom.visible_text import visible

if TYPE_CHECKING:
    from tokenloom.evaluation.comparison import Comparison
    from tokenloom.evaluation.inspection import Inspection, ScoredToken
    from tokenloom.evaluation.measurement import Measurement

# The scales of serving/page/scales.js and the colors of reporting/page/theme.css. Backgrounds are transparent, so that
# the same output is legible in light and dark themes.
HEAT, HEAT_STEP, HEAT_LEVELS = "#e2670a", 6.5, 12
BETTER, WORSE, DIFFERENCE_STEP = "#2f6fce", "#d9700a", 10.0
DIFFERENCES = (0.1, 0.5, 1, 2, 4)
"""The smallest difference of each level, in nats."""
MOST_PARTS = 2000
"""Tokens or words that are shown; a browser takes seconds to lay out many more."""
ALTERNATIVES = 3

_WHITE_SPACE = str.maketrans({"\r": "␍", "\n": "↵\n", "\t": "→\t"})
Span = tuple[str, str, str]  # text, class, tooltip


def heatmap_html(inspection: Inspection) -> str:
    """The inspected text, colored by the loss of each token; the first token is not predicted and has no color."""
    spans = ((token.text, f"heat-{heat_level(token.nats)}", _prediction(token)) for token in inspection.tokens)
    swatches = "".join(f'<i class="heat-{level}"></i>' for level in range(HEAT_LEVELS + 1))
    legend = f"0 {swatches} {HEAT_LEVELS} nats or more: the negative log-likelihood of each token"
    return _block(
        [_figures(inspection.measurement)],
        legend,
        _text(inspection.first.text, spans, len(inspection.tokens)),
    )


def difference_html(comparison: Comparison) -> str:
    """The compared text, blue where B predicts it better than A and orange where it predicts it worse."""
    spans = (
        (part.text, _difference_class(part.nats.difference), f"{_signed(part.nats.difference)} nats")
        for part in comparison.parts
    )
    levels = range(len(DIFFERENCES), 0, -1)
    better = "".join(f'<i class="better-{level}"></i>' for level in levels)
    worse = "".join(f'<i class="worse-{level}"></i>' for level in reversed(levels))
    unit = comparison.unit
    legend = f"B better by 4 nats or more {better}<i></i>{worse} worse by 4 nats or more, {unit} by {unit}"
    lines = [
        f"<b>{name}</b> {escape(visible(model.model))}: {_figures(model.measurement)}"
        for name, model in zip("AB", comparison.models, strict=True)
    ]
    return _block(lines, legend, _text(comparison.before, spans, len(comparison.parts)))


def heat_level(nats: float) -> int:
    """One level for each nat, from 0 to 12."""
    return HEAT_LEVELS if math.isnan(nats) else math.floor(min(HEAT_LEVELS, max(0.0, nats)) + 0.5)


def difference_level(nats: float) -> int:
    """The level of a difference in nats, B minus A: negative where B is better, 0 below 0.1 nats, at most 5."""
    level = sum(abs(nats) >= lowest for lowest in DIFFERENCES)
    return -level if nats < 0 else level


def _difference_class(nats: float) -> str:
    level = difference_level(nats)
    return f"{'better' if level < 0 else 'worse'}-{abs(level)}" if level else ""


def _prediction(token: ScoredToken) -> str:
    """The tooltip of a token."""
    parts = [f"{token.nats:.2f} nats, probability {token.probability:.3g}, rank {token.rank:,}"]
    parts += [f"{other.text!r} {other.probability:.3g}" for other in token.top[:ALTERNATIVES]]
    return "; ".join(parts)


def _figures(measurement: Measurement) -> str:
    figures = [f"loss {measurement.loss:.3f} nats per token", f"perplexity {measurement.perplexity:,.2f}"]
    if measurement.bits_per_byte is not None:
        figures.append(f"{measurement.bits_per_byte:.3f} bits per byte")
    return " · ".join([*figures, f"{measurement.tokens:,} tokens"])


def _text(before: str, spans: Iterable[Span], count: int) -> str:
    parts = [_span((before, "", "not predicted")), *map(_span, islice(spans, MOST_PARTS))]
    if count > MOST_PARTS:
        parts.append(f" … and {count - MOST_PARTS:,} more")
    return "".join(parts)


def _span(span: Span) -> str:
    text, name, tooltip = span
    # Without line breaks in the source, Markdown takes the output as one block.
    shown = escape(visible(text.translate(_WHITE_SPACE))).replace("\n", "<br>")
    return f'<span class="{name}" title="{escape(visible(tooltip))}">{shown}</span>'


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\N{MINUS SIGN}")


def _block(lines: Sequence[str], legend: str, text: str) -> str:
    figures = "".join(f"<p>{line}</p>" for line in lines)
    return (
        f'<div class="tokenloom-text"><style>{_STYLE}</style>{figures}<p class="legend">{legend}</p>'
        f'<p class="tokens">{text}</p></div>'
    )


def _rules() -> str:
    """The style of the output; every selector begins with the class of its block."""
    rules = {
        "": "font:14px/1.5 system-ui,sans-serif;margin:8px 0",
        " p": "margin:0 0 8px",
        " .tokens": "font:15px/2 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere",
        " .tokens span": "padding:3px 0;border-radius:3px",
        " i": "display:inline-block;width:12px;height:14px;vertical-align:middle;border:1px solid #8884;"
        "border-width:1px 0",
    }
    for level in range(1, HEAT_LEVELS + 1):
        rules[f" .heat-{level}"] = f"background:{_transparent(HEAT, level * HEAT_STEP)}"
    for name, color, line in (("better", BETTER, "overline"), ("worse", WORSE, "underline")):
        for level in range(1, len(DIFFERENCES) + 1):
            rules[f" .{name}-{level}"] = f"background:{_transparent(color, level * DIFFERENCE_STEP)}"
            rules[f" .tokens .{name}-{level}"] = f"text-decoration:{line} 2px {color}"
    return "".join(f".tokenloom-text{selector}{{{rule}}}" for selector, rule in rules.items())


def _transparent(color: str, percent: float) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{percent / 100:.3g})"


_STYLE = _rules()
