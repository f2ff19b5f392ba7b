"""Training on the terminal: live where it can be drawn, plain lines elsewhere."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
from figures import PLAN, SUMMARY
from rich.console import Console
from screens import Clock, plain, shown_on, terminal

from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.console import TrainingDisplay
from tokenloom.run_records import SampleRecord

SAMPLE = SampleRecord(
    step=100, tokens=1, prompt="def f", text="(x):\n\t[bold]\x1b[31m\x00 \ud800 語" + " word" * 90, seed=1
)
RECORD = MetricsRecord(step=600, tokens=600 * 4096, epoch=3.84, seconds=99.0)


def play(console, plan=PLAN, summary=SUMMARY):
    clock = Clock()
    with TrainingDisplay(console, clock=clock) as display:
        display.started(plan)
        for step in range(1, 201):
            clock.now += 0.1
            display.stepped(step, 8 - step / 50, 43_000.0)
            position = MetricsRecord(step=step, tokens=step * 4096, epoch=0.1, seconds=clock.now)
            if step % 50 == 0:
                display.recorded(replace(position, train_loss=8 - step / 50, lr=1e-3, tokens_per_sec=43e3))
            if step % 100 == 0:
                display.recorded(replace(position, val_loss=8 - step / 60, val_bits_per_byte=4 - step / 100))
                display.sampled(SAMPLE)
        display.notice("Saved runs/demo/checkpoints/step-00000200. Resume with: tokenloom train --resume runs/demo" * 2)
        if summary:
            display.finished(summary)


def plain_output(encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    play(Console(file=file, force_terminal=False, width=80))
    return raw.getvalue().decode(encoding)


def test_off_a_terminal_each_record_is_one_plain_line():
    output = plain_output()
    assert "\x1b" not in output
    assert "\r" not in output
    lines = output.split("\n")
    assert "step   100/1,200  train 6.000  43k tok/s  1:50 left" in lines
    assert "step   200/1,200  val 4.667  2.00 bits/byte  best  1:40 left" in lines
    assert sum(line.startswith("step  ") for line in lines) == 6
    assert sum(line.startswith("  sample  ") for line in lines) == 2
    # A notice is never truncated: it may contain a command.
    assert all(len(line) < 80 for line in lines if not line.startswith("Saved"))
    assert any(line.endswith("runs/demo") and len(line) > 160 for line in lines if line.startswith("Saved"))


def test_the_final_evaluation_of_a_long_text_shows_its_progress():
    clock, console = Clock(), plain()
    with TrainingDisplay(console, clock=clock) as display:
        display.started(PLAN)
        for done in range(0, 4_001, 500):
            clock.now += 1.0
            display.evaluated(done, 4_000)
        display.finished(SUMMARY)
    output = shown_on(console)
    assert output.count("evaluating on the whole validation text: ") == 1
    assert "evaluating on the whole validation text: 2,500 of 4,000 windows, 500 windows/s, 0:03 left\n" in output
    assert output.index("evaluating") < output.index("Done: ")


def test_the_final_evaluation_replaces_the_panel_of_a_terminal():
    clock, console = Clock(), terminal()
    with TrainingDisplay(console, clock=clock) as display:
        display.started(PLAN)
        for done in (10, 20):
            clock.now += 2.0
            display.evaluated(done, 4_000)
    assert "evaluating on the whole" in shown_on(console)


def test_validation_figures_on_a_part_of_the_text_say_so():
    console = plain()
    with TrainingDisplay(console) as display:
        display.recorded(replace(RECORD, val_loss=3.3, val_bits_per_byte=1.93, val_share=0.1234))
        display.recorded(replace(RECORD, val_loss=3.3, val_bits_per_byte=1.93, val_share=1.0))
    assert shown_on(console).splitlines() == [
        "step 600  val 3.300  1.93 bits/byte  on 12% of text",
        "step 600  val 3.300  1.93 bits/byte",
    ]


def test_an_ascii_stream_is_supported():
    assert "def f(x): [bold]" in plain_output("ascii")


def test_the_plan_is_printed_before_the_first_step():
    output = plain_output()
    for line in (
        "data      python-docs: 640k tokens for training, 71k for validation",
        "windows   2,500 for training, 16 per batch, 277 for validation",
        "model     3.4M parameters, 21.4M FLOPs per token",
        "machine   cpu, fp32, 2 threads",
        "plan      1,200 steps of 4,096 tokens, 7.68 epochs, within 2 min",
        "needs     about 400 MB of memory",
        "baselines xz 1.80, zstd 1.92, unigram 4.43 bits/byte",
    ):
        assert line in output


def test_a_plan_without_validation_or_budget_leaves_them_out():
    console = plain()
    without = {"val_tokens": 0, "validation_windows": 0, "budget_seconds": None, "baselines": None}
    play(console, plan=replace(PLAN, first_step=50, **without))
    output = shown_on(console)
    assert "data      python-docs: 640k tokens for training\n" in output
    assert "resumed after step 50" in output
    assert "needs     about 400 MB of memory, about 1 min 58 s" in output
    assert "baselines" not in output


def test_on_a_terminal_the_panel_fits_eighty_columns():
    console = terminal(color_system=None)
    display = TrainingDisplay(console, clock=(clock := Clock()))
    display.started(PLAN)
    display.stepped(1, 7.5, 43_000.0)
    clock.now = 99.0
    display.stepped(600, 3.25, 43_000.0)
    display.recorded(replace(RECORD, val_loss=3.3, val_bits_per_byte=1.93))
    display.close()
    with console.capture() as capture:
        console.print(display._panel())
    first, second = capture.get().rstrip("\n").split("\n")
    assert first.endswith("50%  step 600/1,200  43k tok/s  1:39 left")
    assert second.startswith("█▁")
    assert second.endswith("train 3.250  val 3.300  1.93 bits/byte")
    assert len(first) == len(second) == 80


def test_on_a_terminal_samples_scroll_and_cannot_act_on_it():
    console = terminal()
    play(console)
    output = shown_on(console)
    assert "[bold]␛[31m␀ \ufffd 語" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is restored
    assert "Done: 1,200 steps, 4.9M tokens, 1 min 54 s, 43k tokens/s" in output


def test_an_interruption_restores_the_terminal():
    console = terminal()

    def be_interrupted():
        with TrainingDisplay(console) as display:
            display.started(PLAN)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert shown_on(console).count("\x1b[?25l") == shown_on(console).count("\x1b[?25h") == 1


def test_the_history_of_losses_stays_small():
    display = TrainingDisplay(plain())
    for step in range(100_000):
        display.stepped(step, 1.0, 1.0)
    assert len(display._losses.values()) <= 256


def test_importing_the_console_is_cheap():
    heavy = "rich", "matplotlib", "torch", "numpy", "pydantic"
    program = f"import sys, tokenloom.reporting.console as _; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
