"""What is told about a run in the same words on the terminal and in its report: verdicts, commands, numbers, times."""

from __future__ import annotations

import json
import math
import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

PLAIN_WIDTH = 79
HARDLY = 0.01  # of the loss: a smaller rise says nothing
BITS_BASELINES = {
    "xz_bits_per_byte": "xz",
    "zstd_bits_per_byte": "zstd",
    "unigram_bits_per_byte": "unigram",
}

_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_UNPRINTABLE = re.compile("[\ud800-\udfff\x80-\x9f]")


def summary_lines(summary: Mapping[str, Any], baselines: Mapping[str, Any] | None) -> list[str]:
    """The closing words after training: what came out, how good it is, where it lies, and what to type next."""
    run = str(summary.get("run") or "RUN")
    figures = [_done_line(summary), _losses_line(summary), bits_per_byte_note(summary, baselines)]
    note = overfitting_note(
        summary.get("best_step"), summary.get("best_val_loss"), summary.get("steps"), summary.get("val_loss")
    )
    places = [f"checkpoint  {summary['checkpoint']}"] if summary.get("checkpoint") else []
    places += [f"report      {Path(run) / 'report.html'}"]
    commands = [f"  {command}" for command, _ in next_commands(run, summary, finished_steps=summary.get("steps"))]
    return ["", *filter(None, figures), *textwrap.wrap(note, PLAIN_WIDTH), *places, "", "Next:", *commands]


def bits_per_byte_note(figures: Mapping[str, Any], baselines: Mapping[str, Any] | None) -> str:
    """Bits per byte beside what compressors need, as a sentence; empty if it was not measured."""
    bits = figures.get("val_bits_per_byte")
    if bits is None:
        return ""
    known = [
        f"{BITS_BASELINES[key]} needs {value:.2f}"
        for key in ("xz_bits_per_byte", "zstd_bits_per_byte")
        if (value := (baselines or {}).get(key)) is not None
    ]
    beside = f"; {' and '.join(known)} given the same training text" if known else ""
    return f"{bits:.2f} bits/byte{beside}"


def overfitting_note(
    best_step: int | None, best_loss: float | None, last_step: int | None, last_loss: float | None
) -> str:
    """Whether the model learns its text by heart, in words for a learner; losses in nats per token."""
    if best_step is None or best_loss is None or last_loss is None:
        return "No validation loss was measured, so whether the model overfits is not known."
    rise = _rise(best_loss, last_loss)
    if best_step == last_step or rise <= 0:
        return (
            f"No sign of overfitting: the latest validation loss is the lowest so far ({best_loss:.3f}, step "
            f"{best_step:,}). More steps would likely lower it further."
        )
    if rise <= HARDLY:
        return (
            f"The validation loss has hardly moved since its lowest ({best_loss:.3f}, step {best_step:,}; now "
            f"{last_loss:.3f}). More steps alone will hardly help; more text or a larger model may."
        )
    return (
        f"It overfits: the validation loss was lowest at step {best_step:,} ({best_loss:.3f}) and is now "
        f"{last_loss:.3f}, {rise:.0%} higher. Since then the model has been learning its training text by heart. "
        "The best checkpoint is kept: add @best to the run's name. More text helps most, then a smaller model."
    )


def next_commands(run: str, figures: Mapping[str, Any], *, finished_steps: int | None = None) -> list[tuple[str, str]]:
    """What to type after training, each with what it is for.

    `figures` are those of a summary: where they show overfitting, the best checkpoint is the one to use. A run that is
    finished, after `finished_steps`, goes on only if it is given more steps.
    """
    run = visible(run)
    name, model = shlex.quote(run), shlex.quote(f"{run}@best" if _overfits(figures) else run)
    going_on = (f"tokenloom train --resume {name}", "go on from the newest checkpoint")
    longer = (f"{going_on[0]} --train.max-steps {2 * (finished_steps or 0)}", "go on for as many steps again")
    return [
        (f'tokenloom generate {model} --prompt "Once upon a time"', "let it write"),
        (f"tokenloom evaluate {model}", "measure it on its validation text, or on a text named after it"),
        longer if finished_steps else going_on,
    ]


def visible(text: str) -> str:
    """Text in which every control character but tab and newline can be seen and none acts on a terminal or page."""
    return _UNPRINTABLE.sub("\ufffd", text.translate(_CONTROLS))


def quoted(text: str, width: int) -> str:
    """Text between quotation marks, line ends and the like written out, shortened to `width` characters."""
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def compact(number: float) -> str:
    """A count in at most four digits: 950, 20.3k, 162M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            digits = 0 if abs(scaled) >= 99.95 else 1
            return f"{scaled:.{digits}f}".removesuffix(".0") + letter
    return f"{number:.0f}" if number == round(number) or abs(number) >= 100 else f"{number:.3g}"


def clock_time(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Seconds in words: 7.3 s, 1 min 54 s, 2 h 5 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = [f"{hours} h", f"{minutes} min"] if hours else [f"{minutes} min", f"{rest} s"]
    return " ".join(word for word in words if not word.startswith("0 "))


def sparkline(values: Sequence[float], width: int, marks: str = "▁▂▃▄▅▆▇█") -> str:
    """Values as a row of at most `width` bars between the least and the greatest of them."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [index * len(finite) // count for index in range(count + 1)] if count else []
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means, default=0.0), (max(means, default=0.0) - min(means, default=0.0)) or 1.0
    return "".join(marks[round((mean - low) / span * (len(marks) - 1))] for mean in means)


def _done_line(summary: Mapping[str, Any]) -> str:
    parts = [f"{summary['steps']:,} steps" if summary.get("steps") is not None else "Training"]
    parts += [f"{compact(summary['tokens'])} tokens"] if summary.get("tokens") is not None else []
    parts += [duration(summary["seconds"])] if summary.get("seconds") is not None else []
    parts += [f"{compact(summary['tokens_per_sec'])} tokens/s"] if summary.get("tokens_per_sec") is not None else []
    return f"Done: {', '.join(parts)}"


def _losses_line(summary: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {summary[key]:{form}}"
        for key, name, form in (
            ("train_loss", "train loss", ".3f"),
            ("val_loss", "validation loss", ".3f"),
            ("val_perplexity", "perplexity", ",.1f"),
        )
        if summary.get(key) is not None
    ]
    return ", ".join(parts)


def _overfits(figures: Mapping[str, Any]) -> bool:
    best_loss, last_loss = figures.get("best_val_loss"), figures.get("val_loss")
    if best_loss is None or last_loss is None or figures.get("best_step") in (None, figures.get("steps")):
        return False
    return _rise(best_loss, last_loss) > HARDLY


def _rise(best_loss: float, last_loss: float) -> float:
    """How much higher the latest loss is than the best, as a fraction of the best."""
    return last_loss / best_loss - 1 if best_loss > 0 else 0.0
