"""A budget is kept: planned from what was timed, and corrected once if the machine turns out otherwise."""

import time

import pytest

from tokenloom import api
from tokenloom.config import TrainConfig
from tokenloom.training import loop
from tokenloom.training.deadline import RESERVE_SECONDS, Deadline
from tokenloom.training.run import read_run_config

TINY = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "data": {"tokenizer": "byte"},
    "train": {"batch_size": 4, "warmup_steps": 2, "device": "cpu", "precision": "fp32"},
    "sample": {"max_new_tokens": 0},
}


def deadline(seconds, **costs):
    return Deadline(
        time.time() + seconds, 100.0, **({"step_seconds": 1.0, "look_seconds": 0, "final_seconds": 0} | costs)
    )


@pytest.mark.parametrize(
    ("costs", "done", "step_seconds", "steps"),
    [
        ({}, 0, None, 100),
        ({"final_seconds": 20.0}, 0, None, 80),
        ({"look_seconds": 2.0}, 0, None, 80),  # ten looks
        ({"look_seconds": 2.0}, 60, None, 86),  # seven of ten are left: 100 - 20 · 86/146
        ({}, 40, 2.0, 50),
        ({"final_seconds": 10.0}, 40, 2.0, 40),  # the end takes twice as long, too
    ],
)
def test_steps_that_fit(costs, done, step_seconds, steps):
    there = deadline(101.0 + RESERVE_SECONDS + 0.5, **costs)  # a hundredth of the budget is kept back
    assert there.steps_from_now(TrainConfig(), done, step_seconds) == pytest.approx(steps, abs=2)


def test_an_interval_of_evaluations_is_kept():
    there = deadline(101.5 + RESERVE_SECONDS, look_seconds=5.0)
    assert there.steps_from_now(TrainConfig(eval_interval=5), 0) == 50


def test_the_plan_is_reviewed_before_the_decay_begins():
    for schedule in ("wsd", "cosine"):
        train = TrainConfig(max_steps=110, warmup_steps=10, schedule=schedule, decay_fraction=0.6)
        due = [step for step in range(110) if deadline(100.0).is_review_due(train, step)]
        assert due[0] == 50
    assert deadline(59.0).is_review_due(train, 3), "the time for it is over"


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_a_machine_that_is_not_as_it_was_gets_other_steps_and_ends_in_time(tmp_path, monkeypatch, factor):
    """The work that is timed takes 20 ms, that of the run `factor` times as long."""
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 400)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    really = loop.train_step
    pace = {"seconds": 0.02}

    def slow(trainee, step):
        if trainee.deadline is not None:
            pace["seconds"] = 0.02 * factor
        time.sleep(pace["seconds"])
        return really(trainee, step)

    monkeypatch.setattr(loop, "train_step", slow)
    monkeypatch.setattr("tokenloom.training.budget.train_step", slow)
    before = time.time()
    summary = api.train(tmp_path / "text.txt", out=tmp_path / "run", budget=9, settings=TINY, quiet=True)
    took = time.time() - before
    assert summary["steps"] == read_run_config(tmp_path / "run").train.max_steps
    assert 5 < took < 10.5  # the planned steps would have taken four times, or a quarter, of the nine seconds
