"""The report of a run: one HTML file that holds everything there is to see, and needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from tokenloom.reporting.files import write_whole
from tokenloom.reporting.history import RunHistory, headline_figures, read_history
from tokenloom.reporting.matplotlib_plots import plot_losses
from tokenloom.reporting.messages import (
    bits_per_byte_note,
    compact,
    duration,
    next_commands,
    overfitting_note,
    visible,
)
from tokenloom.reporting.series import curve
from tokenloom.reporting.svg_charts import bits_per_byte_svg, curve_svg, losses_svg

SAMPLES_SHOWN = 200
FAMILIES = {"gpt2": "GPT-2 style", "modern": "modern"}


def write_report(run: Path) -> Path:
    """Write report.html, loss.png and loss.pdf into the run folder, each in one move; returns the page's path."""
    history = read_history(run)
    name = run.resolve().name
    plot_losses(history.records, [run / "loss.png", run / "loss.pdf"], baselines=history.baselines, title=name)
    page = run / "report.html"
    write_whole(page, _page(history, name).encode("utf-8"))
    return page


def _page(history: RunHistory, name: str) -> str:
    figures = headline_figures(history)
    style, script = _asset("report.css"), _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [
        _header(history, figures, name),
        _tiles(figures, history.baselines),
        _curves(history),
        _overfitting(figures),
        _samples(history),
        _figure_table(figures),
        _configuration(history.config),
        _going_on(history, figures),
    ]
    # The policy lets nothing be fetched and no script run but the one below, whatever a sample holds.
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{_text(name)} · Tokenloom</title>
<style>{style}</style>
</head>
<body>
<main>
{"".join(sections)}
</main>
<footer>Written by Tokenloom. This page is one file: keep it, mail it, open it offline.</footer>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    """A file of the page, on lines of its own."""
    return "\n" + resources.files("tokenloom.reporting").joinpath(f"page/{name}").read_text(encoding="utf-8")


def _text(value: object) -> str:
    """Any value as text that a page shows as it is."""
    return escape(visible(str(value)))


def _header(history: RunHistory, figures: Mapping[str, Any], name: str) -> str:
    model, data, train = (history.config.get(section, {}) for section in ("model", "data", "train"))
    shape = [f"{compact(figures['parameters'])} parameters"] if figures.get("parameters") else []
    shape += [f"{model[key]} {unit}" for key, unit in (("n_layer", "layers"), ("n_embd", "wide")) if key in model]
    shape += [f"context of {model['block_size']:,} tokens"] if isinstance(model.get("block_size"), int) else []
    kind = FAMILIES.get(str(model.get("family")), "")
    sources = ", ".join(str(source) for source in data.get("sources", [])) or "an unnamed text"
    machine = ", ".join(str(figures[key]) for key in ("device", "precision") if figures.get(key))
    lead = f"A {kind} GPT".replace("  ", " ") + (f" ({', '.join(shape)})" if shape else "")
    lead += f", trained from scratch on <b>{_text(sources)}</b>{_text(f', on {machine}') if machine else ''}."
    step, total = figures.get("steps"), train.get("max_steps")
    state = "finished" if history.summary else "not finished"
    if not history.summary and step is not None and total:
        state += f": step {step:,} of {total:,}"
    return f'<header><p class="state">{_text(state)}</p><h1>{_text(name)}</h1><p class="lead">{lead}</p></header>'


def _tiles(figures: Mapping[str, Any], baselines: Mapping[str, Any]) -> str:
    """The four figures to look at first."""
    note = bits_per_byte_note(figures, baselines)
    beside = note.partition("; ")[2] or "of the validation text"
    tiles = [
        ("val_bits_per_byte", "bits per byte", ".2f", beside),
        ("val_loss", "validation loss", ".3f", "nats per token"),
        ("val_perplexity", "perplexity", ",.1f", "tokens it hesitates between"),
        ("tokens", "tokens seen", "", f"in {duration(figures['seconds'])}" if "seconds" in figures else ""),
    ]
    cells = [
        f"<div><dt>{title}</dt><dd>{format(figures[key], form) if form else compact(figures[key])}"
        f"<small>{_text(small)}</small></dd></div>"
        for key, title, form, small in tiles
        if figures.get(key) is not None
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>' if cells else "<p>Nothing has been measured yet.</p>"


def _curves(history: RunHistory) -> str:
    records, baselines = history.records, history.baselines
    wide = losses_svg(records, baselines=baselines)
    narrow = losses_svg(records, baselines=baselines, width=420, height=300)
    cards = [_card("Loss", "nats per token; the ring marks the best validation", wide, narrow)] if wide else []
    small = [
        ("Bits per byte", "of the validation text; lower is better", bits_per_byte_svg(records, baselines=baselines)),
        ("Learning rate", "", curve_svg(records, "lr", "Learning rate")),
        ("Gradient norm", "before clipping", curve_svg(records, "grad_norm", "Gradient norm")),
        ("Speed", "tokens per second", curve_svg(records, "tokens_per_sec", "Tokens per second")),
    ]
    cards += [_card(title, unit, drawing) for title, unit, drawing in small if drawing]
    return _section("Curves", f'<div class="cards">{"".join(cards)}</div>') if cards else ""


def _card(title: str, unit: str, drawing: str, narrow: str = "") -> str:
    drawings = f'<div class="wide">{drawing}</div><div class="narrow">{narrow}</div>' if narrow else drawing
    size = ' class="full"' if narrow else ""
    return f"<figure{size}><figcaption>{title} <small>{unit}</small></figcaption>{drawings}</figure>"


def _overfitting(figures: Mapping[str, Any]) -> str:
    if "val_loss" not in figures and "train_loss" not in figures:
        return ""
    note = overfitting_note(
        figures.get("best_step"), figures.get("best_val_loss"), figures.get("steps"), figures.get("val_loss")
    )
    meaning = (
        "Training loss is measured on text that the model learns from, validation loss on text it never learns from. "
        "While both fall, it learns what holds for any such text; once validation rises, it memorises."
    )
    return _section("Does it overfit?", f'<p class="note">{_text(note)}</p><p class="aside">{meaning}</p>')


def _samples(history: RunHistory) -> str:
    """Each prompt with what the model wrote at every evaluation, the latest first in sight."""
    by_prompt: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for sample in history.samples:
        by_prompt.setdefault((str(sample.get("prompt", "")), sample.get("seed")), []).append(sample)
    losses = {point.step: point.value for point in curve(history.records, "val/loss")}
    prompts = [_prompt(prompt, samples, losses) for (prompt, _), samples in by_prompt.items()]
    return _section("What it writes", "".join(prompts)) if prompts else ""


def _prompt(prompt: str, samples: list[dict[str, Any]], losses: Mapping[int, float]) -> str:
    takes = [_take(prompt, sample, losses) for sample in _spread_out(samples, SAMPLES_SHOWN)]
    title = f"after “{_text(prompt)}”" if prompt else "from nothing"
    slider = (
        '<label class="scrub" hidden>earlier '
        f'<input type="range" min="0" max="{len(takes) - 1}" value="{len(takes) - 1}" aria-label="step"> later</label>'
    )
    earlier = f"<details><summary>{len(takes) - 1} earlier</summary>{''.join(takes[:-1])}</details>"
    return (
        f'<div class="prompt"><h3>{title}</h3>{slider if len(takes) > 1 else ""}'
        f'<div class="stage">{takes[-1]}</div>{earlier if len(takes) > 1 else ""}</div>'
    )


def _take(prompt: str, sample: Mapping[str, Any], losses: Mapping[int, float]) -> str:
    step, tokens = sample.get("step"), sample.get("tokens")
    facts = [f"step {step:,}"] if isinstance(step, int) else []
    facts += [f"{compact(tokens)} tokens seen"] if isinstance(tokens, int) else []
    facts += [f"validation loss {losses[step]:.3f}"] if isinstance(step, int) and step in losses else []
    return (
        f'<div class="take"><p>{_text(" · ".join(facts))}</p>'
        f"<pre><b>{_text(prompt)}</b>{_text(sample.get('text', ''))}</pre></div>"
    )


def _spread_out(items: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """At most `limit` of the items, evenly chosen, the first and last among them."""
    if len(items) <= limit:
        return items
    return [items[round(index * (len(items) - 1) / (limit - 1))] for index in range(limit)]


def _figure_table(figures: Mapping[str, Any]) -> str:
    rows = [
        ("train_loss", "Training loss", ".3f", "nats per token"),
        ("val_loss", "Validation loss", ".3f", "nats per token"),
        ("best_val_loss", "Best validation loss", ".3f", "nats per token"),
        ("best_step", "Best step", ",", ""),
        ("val_perplexity", "Validation perplexity", ",.2f", "tokens"),
        ("val_bits_per_byte", "Validation text", ".4f", "bits per byte"),
        ("steps", "Steps", ",", "updates"),
        ("tokens", "Tokens seen", ",", "tokens"),
        ("epoch", "Epochs", ".2f", "times through the training text"),
        ("seconds", "Time", ",.1f", "seconds"),
        ("tokens_per_sec", "Speed", ",.0f", "tokens per second"),
        ("peak_memory_mb", "Peak memory", ",.0f", "MB"),
        ("parameters", "Parameters", ",", "numbers"),
        ("device", "Device", "", ""),
        ("precision", "Precision", "", ""),
    ]
    body = "".join(
        f"<tr><th>{title}</th><td>{_text(format(figures[key], form))}</td><td>{unit}</td></tr>"
        for key, title, form, unit in rows
        if figures.get(key) is not None
    )
    return _section("Figures", f'<table class="figures">{body}</table>') if body else ""


def _configuration(config: Mapping[str, Mapping[str, Any]]) -> str:
    tables = [
        f"<table><caption>{_text(section)}</caption>"
        + "".join(f"<tr><th>{_text(key)}</th><td>{_text(_setting(value))}</td></tr>" for key, value in values.items())
        + "</table>"
        for section, values in config.items()
    ]
    return _section("Configuration", f'<div class="settings">{"".join(tables)}</div>') if tables else ""


def _setting(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(json.dumps(item, ensure_ascii=False) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _going_on(history: RunHistory, figures: Mapping[str, Any]) -> str:
    # Records tell how far an unfinished run is; only the summary of a finished one tells that it cannot simply go on.
    commands = next_commands(
        str(figures.get("run") or history.run), figures, finished_steps=history.summary.get("steps")
    )
    lines: Iterable[str] = (f"<dt>{_text(use)}</dt><dd><code>{_text(line)}</code></dd>" for line, use in commands)
    made = f"<dt>made by</dt><dd><code>{_text(figures['command'])}</code></dd>" if figures.get("command") else ""
    pictures = 'The loss plot lies beside this page: <a href="loss.png">loss.png</a>, <a href="loss.pdf">loss.pdf</a>.'
    return _section("How to go on", f'<dl class="commands">{"".join(lines)}{made}</dl><p class="aside">{pictures}</p>')


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>\n"
