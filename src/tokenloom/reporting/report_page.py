"""The content of a run's report, section by section; the templates only arrange it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

from markupsafe import Markup

from tokenloom.config import Config
from tokenloom.metrics import METRICS, Metric, MetricsRecord
from tokenloom.reporting.formatting import compact, counted, duration, percent
from tokenloom.reporting.history import RunHistory, headline_figures
from tokenloom.reporting.messages import compressors_note, next_commands, overfitting_note, part_note
from tokenloom.reporting.svg_charts import bits_per_byte_svg, losses_svg, metric_svg
from tokenloom.run_records import RunSummary, SampleRecord

SAMPLES_SHOWN = 200
WHOLE_TEXT = "whole validation text"
FAMILIES = {"gpt2": "GPT-2 style GPT", "modern": "modern GPT"}


@dataclass(frozen=True)
class Headline:
    """One of the large figures at the top."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    svg: Markup
    narrow_svg: Markup | None = None
    """A variant for narrow screens; a chart that has one takes the full width."""


@dataclass(frozen=True)
class Sample:
    position: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """A prompt with its samples in order of their steps."""

    title: str
    earlier: Sequence[Sample]
    latest: Sample


@dataclass(frozen=True)
class Row:
    label: str
    value: str
    unit: str = ""


@dataclass(frozen=True)
class RowGroup:
    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class ReportPage:
    """Everything that the report shows; what a run does not have is empty."""

    name: str
    state: str
    model: str
    training: str
    sources: str
    machine: str
    headlines: Sequence[Headline]
    charts: Sequence[Chart]
    overfitting: str
    evaluation_note: str
    prompts: Sequence[Prompt]
    results: Sequence[RowGroup]
    configuration: Mapping[str, Mapping[str, str]]
    commands: Sequence[tuple[str, str]]
    """Commands to run next, each with its purpose."""
    created_by: str
    loss_plots: Sequence[str]

    @classmethod
    def of(cls, history: RunHistory) -> Self:
        figures = headline_figures(history)
        config = history.config
        init_from = config.train.init_from if config else None
        measured = figures.train_loss is not None or figures.val_loss is not None
        return cls(
            name=history.run.path.resolve().name,
            state=_state(history, figures),
            model=_model(config, figures),
            training=f"initialized from {init_from} and trained on" if init_from else "trained from scratch on",
            sources=", ".join(config.data.sources) if config else "an unnamed text",
            machine=", ".join(filter(None, [figures.device, figures.precision])),
            headlines=_headlines(history, figures),
            charts=_charts(history),
            overfitting=overfitting_note(figures) if measured else "",
            evaluation_note=_evaluation_note(history),
            prompts=_prompts(history),
            results=_results(history, figures),
            configuration=_configuration(config),
            # An unfinished run resumes as it is; a finished one needs more steps.
            commands=next_commands(
                figures.run, figures, finished_steps=history.summary.steps if history.summary else None
            ),
            created_by=figures.command or "",
            loss_plots=[path.name for path in history.run.loss_plots],
        )


def _state(history: RunHistory, figures: RunSummary) -> str:
    if history.summary:
        return "finished"
    if history.config is None or figures.steps is None:
        return "not finished"
    return f"not finished: step {figures.steps:,} of {history.config.train.max_steps:,}"


def _model(config: Config | None, figures: RunSummary) -> str:
    if config is None:
        return "A GPT"
    model = config.model
    size = [f"{compact(figures.parameters)} parameters"] if figures.parameters else []
    size += [
        counted(model.n_layer, "layer"),
        f"width {model.n_embd}",
        f"context of {counted(model.block_size, 'token')}",
    ]
    return f"A {FAMILIES[model.family]} ({', '.join(size)})"


def _evaluation_scope(history: RunHistory) -> str:
    """The part of the validation text that an evaluation during training uses."""
    share = history.latest.val_share if history.latest else None
    if share is not None:
        return WHOLE_TEXT if share >= 1 else f"{percent(share)} of the validation text"
    batches = history.config.train.eval_batches if history.config else None
    if batches is None:
        return WHOLE_TEXT
    return f"at most {counted(batches, 'batch', 'batches')} of the validation text"


def _evaluation_note(history: RunHistory) -> str:
    scope = _evaluation_scope(history)
    if scope == WHOLE_TEXT:
        return "Every evaluation uses the whole validation text."
    return f"An evaluation during training uses {scope}, the final one all of it."


def _headlines(history: RunHistory, figures: RunSummary) -> list[Headline]:
    scope = WHOLE_TEXT if history.summary else f"last evaluation, {_evaluation_scope(history)}"
    comparison = compressors_note(history.baselines)
    headlines: list[Headline] = []
    if figures.val_bits_per_byte is not None:
        note = "; ".join(filter(None, [scope, comparison]))
        headlines.append(Headline("bits per byte", f"{figures.val_bits_per_byte:.2f}", note))
    if figures.val_loss is not None:
        loss = METRICS["val_loss"]
        headlines.append(Headline(loss.label, loss.text(figures.val_loss), f"{loss.unit}, {scope}"))
    if figures.val_perplexity is not None:
        headlines.append(Headline("perplexity", f"{figures.val_perplexity:,.1f}", f"exp(validation loss), {scope}"))
    if figures.tokens is not None:
        time = f"in {duration(figures.seconds)}" if figures.seconds is not None else ""
        headlines.append(Headline(METRICS["tokens"].label, compact(figures.tokens), time))
    return headlines


def _charts(history: RunHistory) -> list[Chart]:
    records, baselines, scope = history.metrics, history.baselines, _evaluation_scope(history)
    charts: list[Chart] = []
    if losses := losses_svg(records, baselines=baselines):
        narrow = losses_svg(records, baselines=baselines, width=420, height=300)
        note = f"nats per token; validation on {scope.replace(WHOLE_TEXT, 'the whole validation text')}"
        charts.append(Chart("Loss", f"{note}; the ring marks the lowest", Markup(losses), Markup(narrow)))
    if bits := bits_per_byte_svg(records, baselines=baselines):
        note = f"of {scope.replace(WHOLE_TEXT, 'the whole validation text')}; lower is better"
        charts.append(Chart("Bits per byte", note, Markup(bits)))
    for metric in METRICS.values():
        if metric.chart and (svg := metric_svg(records, metric)):
            charts.append(Chart(_title(metric.label), metric.unit, Markup(svg)))
    return charts


def _prompts(history: RunHistory) -> list[Prompt]:
    """The samples of each prompt and seed."""
    by_prompt: dict[tuple[str, int], list[SampleRecord]] = {}
    for sample in history.samples:
        by_prompt.setdefault((sample.prompt, sample.seed), []).append(sample)
    evaluations = {record.step: record for record in history.metrics if record.val_loss is not None}
    prompts: list[Prompt] = []
    for (prompt, _), records in by_prompt.items():
        *earlier, latest = [_sample(record, evaluations) for record in _evenly_spaced(records, SAMPLES_SHOWN)]
        prompts.append(Prompt(f"Prompt “{prompt}”" if prompt else "Without a prompt", earlier, latest))
    return prompts


def _sample(record: SampleRecord, evaluations: Mapping[int, MetricsRecord]) -> Sample:
    position = [f"step {record.step:,}", f"{compact(record.tokens)} tokens seen"]
    evaluation = evaluations.get(record.step)
    if evaluation is not None and evaluation.val_loss is not None:
        loss = METRICS["val_loss"].text(evaluation.val_loss)
        position.append(f"validation loss {loss}{part_note(evaluation.val_share)}")
    return Sample(" · ".join(position), record.prompt, record.text)


def _evenly_spaced(samples: list[SampleRecord], limit: int) -> list[SampleRecord]:
    """At most `limit` of the samples, the first and the last among them."""
    if len(samples) <= limit:
        return samples
    return [samples[round(index * (len(samples) - 1) / (limit - 1))] for index in range(limit)]


def _results(history: RunHistory, figures: RunSummary) -> list[RowGroup]:
    """Every metric's final value, with the figures that only the summary has."""
    validation = [METRICS[field] for field in ("val_loss", "val_perplexity", "val_bits_per_byte")]
    training = [metric for metric in METRICS.values() if not metric.key.startswith("val/")]
    scope = _evaluation_scope(history)
    best = [
        _row(METRICS["val_loss"], figures.best_val_loss, "Lowest validation loss"),
        _row(METRICS["step"], figures.best_step, "Reached at step"),
    ]
    model = [
        Row("Parameters", f"{figures.parameters:,}") if figures.parameters is not None else None,
        Row("Peak memory", f"{figures.peak_memory_mb:,.0f}", "MB") if figures.peak_memory_mb is not None else None,
        Row("Device", figures.device) if figures.device else None,
        Row("Precision", figures.precision) if figures.precision else None,
    ]
    latest = history.latest

    def rows(metrics: Sequence[Metric]) -> list[Row | None]:
        return [_row(metric, _first_given(metric.value(figures), metric.value(latest))) for metric in metrics]

    groups = {
        f"Final evaluation: {WHOLE_TEXT}" if history.summary else f"Last evaluation: {scope}": rows(validation),
        f"Evaluations during training: {scope}": best,
        "Training": rows(training),
        "Model and device": model,
    }
    filled = {title: [row for row in group if row is not None] for title, group in groups.items()}
    return [RowGroup(title, group) for title, group in filled.items() if group]


def _row(metric: Metric, value: float | None, label: str = "") -> Row | None:
    return Row(label or _title(metric.label), metric.text(value), metric.unit) if value is not None else None


def _first_given(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _configuration(config: Config | None) -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, object]] = config.model_dump(mode="json") if config else {}
    return {section: {name: _setting(value) for name, value in values.items()} for section, values in sections.items()}


def _setting(value: object) -> str:
    """A value as it is written in TOML, lists without brackets."""
    if isinstance(value, list):
        return ", ".join(json.dumps(item, ensure_ascii=False) for item in cast("list[object]", value))
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _title(label: str) -> str:
    return label[:1].upper() + label[1:]
