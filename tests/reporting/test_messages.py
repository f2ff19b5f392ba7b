"""Messages: what a run's figures mean, and the commands to run next."""

import shlex
from dataclasses import replace

import pytest
from figures import BASELINES, SUMMARY

from tokenloom.reporting.messages import (
    bits_per_byte_levels,
    compressors_note,
    next_commands,
    overfitting_note,
    summary_lines,
)
from tokenloom.run_records import Baselines, RunSummary

OVERFITTED = RunSummary(run="run", steps=86, val_loss=6.452, best_step=56, best_val_loss=6.134)


def test_the_summary_compares_with_baselines_and_lists_next_commands():
    lines = summary_lines(SUMMARY, BASELINES)
    assert "1.70 bits/byte; xz needs 1.80 and zstd needs 1.92 given the same training text" in lines
    assert "training loss 2.415, validation loss 2.820, perplexity 16.80 (whole text)" in lines
    assert any("No sign of overfitting" in line for line in lines)
    assert "  tokenloom train --resume runs/demo --train.max-steps 2400" in lines
    assert "report      runs/demo/report.html" in lines
    assert all(len(line) < 80 for line in lines)


def test_the_summary_leaves_out_what_was_not_measured():
    lines = summary_lines(RunSummary(run="a b", steps=3), None)
    assert lines[1] == "Done: 3 steps"
    assert "No validation loss was measured, so overfitting cannot be assessed." in lines
    assert "  tokenloom train --resume 'a b' --train.max-steps 6" in lines


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((None, None, 9, None), "No validation loss"),
        ((90, 3.0, 90, 3.0), "No sign of overfitting"),
        ((90, 3.0, 95, 3.0), "No sign of overfitting"),
        ((50, 3.0, 90, 3.01), "hardly changed"),
        ((56, 6.134, 86, 6.452), "Overfitting: the validation loss was lowest at step 56 (6.134) and is now 6.452, 5%"),
    ],
)
def test_overfitting_is_judged_by_the_rise_since_the_best(figures, verdict):
    best_step, best, steps, last = figures
    assert verdict in overfitting_note(
        RunSummary(run="run", best_step=best_step, best_val_loss=best, steps=steps, val_loss=last)
    )


def test_overfitting_is_judged_on_the_text_that_the_best_loss_was_measured_on():
    part = replace(SUMMARY, val_loss=2.95, best_val_loss=2.8, last_val_loss=2.81, best_step=1100, val_share=0.123)
    assert "hardly changed since its lowest value (2.800 on 12% of the text, step 1,100; now 2.810)" in (
        overfitting_note(part)
    )
    assert "runs/demo@best" not in " ".join(command for command, _ in next_commands("runs/demo", part))
    worse = replace(part, last_val_loss=3.0)
    assert "lowest at step 1,100 (2.800 on 12% of the text) and is now 3.000, 7% higher" in overfitting_note(worse)
    assert "of the text" not in overfitting_note(replace(worse, val_share=1.0))


def test_an_unfinished_run_resumes_as_it_is():
    assert (
        next_commands("runs/demo", RunSummary(run="runs/demo", steps=50))[-1][0] == "tokenloom train --resume runs/demo"
    )


def test_a_finished_run_resumes_only_with_more_steps():
    *_, (command, _) = next_commands("runs/demo", SUMMARY, finished_steps=1200)
    assert command == "tokenloom train --resume runs/demo --train.max-steps 2400"


def test_after_overfitting_the_best_checkpoint_is_the_one_to_use():
    generate, evaluate, serve, resume = (command for command, _ in next_commands("a b", OVERFITTED, finished_steps=86))
    assert shlex.split(generate)[:3] == ["tokenloom", "generate", "a b@best"]
    assert shlex.split(evaluate) == ["tokenloom", "evaluate", "a b@best"]
    assert shlex.split(resume) == ["tokenloom", "train", "--resume", "a b", "--train.max-steps", "172"]
    assert serve == "tokenloom serve 'a b' --open"


@pytest.mark.parametrize(
    "figures",
    [
        RunSummary(run="run"),
        SUMMARY,
        replace(OVERFITTED, best_step=86),
        replace(OVERFITTED, val_loss=6.14),
        replace(OVERFITTED, val_loss=None),
    ],
    ids=["nothing measured", "best at the end", "best is the last", "hardly changed", "not measured"],
)
def test_without_overfitting_the_run_itself_is_used(figures):
    assert [command for command, _ in next_commands("run", figures)][1] == "tokenloom evaluate run"


def test_figures_of_version_0_1_0_say_that_they_count_separators():
    old = replace(BASELINES, compressed_val_bytes=1013, val_bytes=1000)
    assert compressors_note(old).endswith("given the same training text (per byte with document separators)")
    for same in (replace(old, compressed_text_bytes=1000), replace(old, compressed_val_bytes=1000), BASELINES):
        assert compressors_note(same).endswith("given the same training text")


def test_only_measured_baselines_are_levels():
    assert bits_per_byte_levels(BASELINES) == {"xz": 1.80, "zstd": 1.92, "unigram": 4.43}
    assert bits_per_byte_levels(Baselines(zstd_bits_per_byte=1.92)) == {"zstd": 1.92}
    assert bits_per_byte_levels(None) == {}
