"""Words: what a run's figures mean, and what to type next."""

import shlex

import pytest
from figures import BASELINES, SUMMARY

from tokenloom.reporting.messages import (
    clock_time,
    compact,
    duration,
    next_commands,
    overfitting_note,
    sparkline,
    summary_lines,
    visible,
)

OVERFITTED = {"steps": 86, "val_loss": 6.452, "best_step": 56, "best_val_loss": 6.134}


def test_the_closing_words_compare_and_say_what_to_type_next():
    lines = summary_lines(SUMMARY, BASELINES)
    assert "1.70 bits/byte; xz needs 1.80 and zstd needs 1.92 given the same training text" in lines
    assert "train loss 2.415, validation loss 2.820, perplexity 16.8" in lines
    assert any("No sign of overfitting" in line for line in lines)
    assert "  tokenloom train --resume runs/demo --train.max-steps 2400" in lines
    assert "report      runs/demo/report.html" in lines
    assert all(len(line) < 80 for line in lines)


def test_the_closing_words_do_without_what_was_not_measured():
    lines = summary_lines({"run": "a b", "steps": 3, "val_loss": None}, None)
    assert lines[1] == "Done: 3 steps"
    assert "No validation loss was measured, so whether the model overfits is not known." in lines
    assert "  tokenloom train --resume 'a b' --train.max-steps 6" in lines


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ((None, None, 9, None), "No validation loss"),
        ((90, 3.0, 90, 3.0), "No sign of overfitting"),
        ((90, 3.0, 95, 3.0), "No sign of overfitting"),
        ((50, 3.0, 90, 3.01), "hardly moved"),
        ((56, 6.134, 86, 6.452), "It overfits: the validation loss was lowest at step 56 (6.134) and is now 6.452, 5%"),
    ],
)
def test_overfitting_is_told_by_the_rise_since_the_best(figures, verdict):
    assert verdict in overfitting_note(*figures)


def test_a_run_that_is_not_finished_goes_on_as_it_is():
    assert next_commands("runs/demo", {"steps": 50})[-1][0] == "tokenloom train --resume runs/demo"


def test_a_finished_run_goes_on_only_with_more_steps():
    *_, (command, _) = next_commands("runs/demo", SUMMARY, finished_steps=1200)
    assert command == "tokenloom train --resume runs/demo --train.max-steps 2400"


def test_after_overfitting_the_best_checkpoint_is_the_one_to_use():
    generate, evaluate, resume = (command for command, _ in next_commands("a b", OVERFITTED, finished_steps=86))
    assert shlex.split(generate)[:3] == ["tokenloom", "generate", "a b@best"]
    assert shlex.split(evaluate) == ["tokenloom", "evaluate", "a b@best"]
    assert shlex.split(resume) == ["tokenloom", "train", "--resume", "a b", "--train.max-steps", "172"]


@pytest.mark.parametrize(
    "figures",
    [{}, SUMMARY, {**OVERFITTED, "best_step": 86}, {**OVERFITTED, "val_loss": 6.14}, {**OVERFITTED, "val_loss": None}],
    ids=["nothing measured", "best at the end", "best is the last", "hardly moved", "not measured"],
)
def test_without_overfitting_the_run_itself_is_used(figures):
    assert [command for command, _ in next_commands("run", figures)][1] == "tokenloom evaluate run"


def test_a_sparkline_goes_from_the_least_to_the_greatest():
    assert sparkline([3, 2, 1], 10) == "█▅▁"
    assert sparkline([1.0] * 5 + [float("nan")], 10) == "▁▁▁▁▁"
    assert sparkline(range(100), 4) == "▁▃▆█"
    assert sparkline([], 10) == ""


def test_control_characters_are_made_visible():
    assert visible("a\tb\n\x00\x1b\x7f\x9b\ud800é") == "a\tb\n␀␛␡\ufffd\ufffdé"


def test_times_read_as_people_write_them():
    assert [clock_time(t) for t in (7, 754, 3723)] == ["0:07", "12:34", "1:02:03"]
    assert [duration(t) for t in (7.31, 120, 114.2, 7500, 59.97)] == [
        "7.3 s",
        "2 min",
        "1 min 54 s",
        "2 h 5 min",
        "1 min",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7.6812, "7.68"), (950, "950"), (999.9, "1k"), (20_310, "20.3k"), (162_419_712, "162M"), (2e12, "2T")],
)
def test_counts_are_short(number, text):
    assert compact(number) == text
