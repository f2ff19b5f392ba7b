"""Messages about a run that the terminal and the report share: summary, overfitting, next commands."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path

from tokenloom.metrics import METRICS
from tokenloom.reporting.formatting import compact, counted, duration, percent, visible
from tokenloom.run_records import Baselines, RunSummary

LINE_WIDTH = 79
SMALLEST_RISE = 0.01  # of the loss; a smaller one is within the noise of an evaluation


def summary_lines(summary: RunSummary, baselines: Baselines | None) -> list[str]:
    """The lines printed after training: results, comparison with baselines, files, and the next commands."""
    from tokenloom.run_folder import RunFolder

    figures = [_done_line(summary), _losses_line(summary), bits_per_byte_note(summary, baselines)]
    files = [f"checkpoint  {summary.checkpoint}"] if summary.checkpoint else []
    files += [f"report      {RunFolder(Path(summary.run)).report_file}"]
    commands = [f"  {command}" for command, _ in next_commands(summary.run, summary, finished_steps=summary.steps)]
    note = textwrap.wrap(overfitting_note(summary), LINE_WIDTH)
    return ["", *filter(None, figures), *note, *files, "", "Next steps:", *commands]


def bits_per_byte_note(summary: RunSummary, baselines: Baselines | None) -> str:
    """Bits per byte of the model and of compressors, as a sentence; empty if not measured."""
    bits = summary.val_bits_per_byte
    if bits is None:
        return ""
    comparison = compressors_note(baselines)
    return f"{bits:.2f} bits/byte; {comparison}" if comparison else f"{bits:.2f} bits/byte"


def compressors_note(baselines: Baselines | None) -> str:
    """Bits per byte that compressors need for the validation text; empty if not measured."""
    levels = bits_per_byte_levels(baselines)
    needs = [f"{name} needs {levels[name]:.2f}" for name in ("xz", "zstd") if name in levels]
    if not needs:
        return ""
    separators = (
        " (per byte with document separators)" if baselines is not None and baselines.separators_counted else ""
    )
    return f"{' and '.join(needs)} given the same training text{separators}"


def bits_per_byte_levels(baselines: Baselines | None) -> dict[str, float]:
    """The measured baselines in bits per byte, by name."""
    if baselines is None:
        return {}
    levels = {
        "xz": baselines.xz_bits_per_byte,
        "zstd": baselines.zstd_bits_per_byte,
        "unigram": baselines.unigram_bits_per_byte,
    }
    return {name: value for name, value in levels.items() if value is not None}


def overfitting_note(summary: RunSummary) -> str:
    """Whether the model overfits, judged by how much the validation loss has risen since its lowest value."""
    best_step, best_loss, last_loss = summary.best_step, summary.best_val_loss, _last_loss(summary)
    if best_step is None or best_loss is None or last_loss is None:
        return "No validation loss was measured, so overfitting cannot be assessed."
    rise = _rise(best_loss, last_loss)
    part = part_note(summary.val_share)
    if best_step == summary.steps or rise <= 0:
        return (
            f"No sign of overfitting: the latest validation loss is the lowest so far ({best_loss:.3f}{part}, step "
            f"{best_step:,}). More steps would likely lower it further."
        )
    if rise <= SMALLEST_RISE:
        return (
            f"The validation loss has hardly changed since its lowest value ({best_loss:.3f}{part}, step "
            f"{best_step:,}; now {last_loss:.3f}). More steps alone are unlikely to help; more text or a larger model "
            "may."
        )
    return (
        f"Overfitting: the validation loss was lowest at step {best_step:,} ({best_loss:.3f}{part}) and is now "
        f"{last_loss:.3f}, {rise:.0%} higher. Since then the model has been memorizing its training text. "
        "The best checkpoint is kept: append @best to the run's name. More text helps most, then a smaller model."
    )


def resume_command(run: str | Path) -> str:
    """The command that resumes a run, as it is typed in a shell."""
    return f"tokenloom train --resume {shlex.quote(visible(str(run)))}"


def next_commands(run: str, summary: RunSummary, *, finished_steps: int | None = None) -> list[tuple[str, str]]:
    """Commands to run after training, each with its purpose.

    If `summary` shows overfitting, they use the best checkpoint. A run that finished after `finished_steps` can only
    be resumed with more steps.
    """
    run = visible(run)
    name, model = shlex.quote(run), shlex.quote(f"{run}@best" if _overfits(summary) else run)
    resume = (resume_command(run), "resume from the newest checkpoint")
    extend = (f"{resume[0]} --train.max-steps {2 * (finished_steps or 0)}", "train for as many steps again")
    return [
        (f'tokenloom generate {model} --prompt "Once upon a time"', "generate text"),
        (f"tokenloom evaluate {model}", "evaluate on the validation text, or on a text given after the model"),
        (
            f"tokenloom serve {name} --open",
            "see the curves, texts token by token, and two checkpoints compared in the browser",
        ),
        extend if finished_steps else resume,
    ]


def _done_line(summary: RunSummary) -> str:
    parts = [counted(summary.steps, "step") if summary.steps is not None else "Training"]
    parts += [f"{compact(summary.tokens)} tokens"] if summary.tokens is not None else []
    parts += [duration(summary.seconds)] if summary.seconds is not None else []
    parts += [f"{compact(summary.tokens_per_sec)} tokens/s"] if summary.tokens_per_sec is not None else []
    return f"Done: {', '.join(parts)}"


def _losses_line(summary: RunSummary) -> str:
    labels = {"train_loss": "training loss", "val_loss": "validation loss", "val_perplexity": "perplexity"}
    values = {label: (METRICS[field], METRICS[field].value(summary)) for field, label in labels.items()}
    figures = [f"{label} {metric.text(value)}" for label, (metric, value) in values.items() if value is not None]
    return ", ".join(figures) + (" (whole text)" if summary.val_loss is not None else "")


def _overfits(summary: RunSummary) -> bool:
    best_loss, last_loss = summary.best_val_loss, _last_loss(summary)
    if best_loss is None or last_loss is None or summary.best_step in (None, summary.steps):
        return False
    return _rise(best_loss, last_loss) > SMALLEST_RISE


def part_note(share: float | None) -> str:
    """ " on 12% of the text" for figures that are not taken on the whole validation text."""
    return f" on {percent(share)} of the text" if share is not None and share < 1 else ""


def _last_loss(summary: RunSummary) -> float | None:
    """On the same text as the best one; versions before 0.2 did not save it."""
    return summary.val_loss if summary.last_val_loss is None else summary.last_val_loss


def _rise(best_loss: float, last_loss: float) -> float:
    """How much higher the latest loss is than the best, as a fraction of the best."""
    return last_loss / best_loss - 1 if best_loss > 0 else 0.0
