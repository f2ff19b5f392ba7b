"""Time budgets: parsed, planned from measured times, and replanned once if the machine becomes slower or faster."""

import pytest

from tokenloom.config import TrainConfig
from tokenloom.errors import UsageError
from tokenloom.training import budget as budgets
from tokenloom.training import loop
from tokenloom.training.budget import RESERVE_SECONDS, TimeBudget, parse_budget, plan_steps
from tokenloom.training.display import QuietDisplay
from tokenloom.training.interrupt import StopRequest


class FakeClock:
    """A clock that a test moves forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


def budget_of(seconds, clock=lambda: 0.0, **costs):
    costs = {"step_seconds": 1.0, "evaluation_seconds": 0.0, "final_seconds": 0.0} | costs
    return TimeBudget(deadline=seconds, seconds=100.0, clock=clock, **costs)


@pytest.mark.parametrize(
    ("text", "seconds"), [("290s", 290), ("5m", 300), ("1h30m", 5400), ("45", 45), ("1.5m", 90), (" 2 m ", 120)]
)
def test_a_budget_is_written_in_hours_minutes_and_seconds(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5x", "0s", "m", "-5m"])
def test_other_budgets_are_refused(text):
    with pytest.raises(UsageError, match="290s, 5m or 1h30m"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("costs", "step", "step_seconds", "steps"),
    [
        ({}, 0, None, 100),
        ({"final_seconds": 20.0}, 0, None, 80),
        ({"evaluation_seconds": 2.0}, 0, None, 80),  # ten evaluations
        ({"evaluation_seconds": 2.0}, 60, None, 86),  # seven of ten are left: 100 - 20 · 86/146
        ({}, 40, 2.0, 50),
        ({"final_seconds": 10.0}, 40, 2.0, 40),  # the final evaluation takes twice as long as well
    ],
)
def test_steps_that_fit(costs, step, step_seconds, steps):
    budget = budget_of(101.0 + RESERVE_SECONDS + 0.5, **costs)  # a hundredth of the budget is reserved
    assert budget.steps_left(TrainConfig(), step, step_seconds) == pytest.approx(steps, abs=2)


def test_the_evaluation_interval_is_taken_into_account():
    budget = budget_of(101.5 + RESERVE_SECONDS, evaluation_seconds=5.0)
    assert budget.steps_left(TrainConfig(eval_interval=5), 0) == 50


def test_the_plan_is_reviewed_before_the_decay_begins():
    for schedule in ("wsd", "cosine"):
        train = TrainConfig(max_steps=110, warmup_steps=10, schedule=schedule, decay_fraction=0.6)
        due = [step for step in range(110) if budget_of(100.0).is_review_due(train, step)]
        assert due[0] == 50
    assert budget_of(59.0).is_review_due(train, 3), "the share of the time before the review is used up"


def test_the_plan_follows_from_measured_times(state, clock, monkeypatch):
    train_step, evaluate = budgets.train_step, budgets.evaluate

    def step_of_half_a_second(state, step):
        clock.now += 0.5
        return train_step(state, step)

    def evaluation_of_a_second(state, batches=None):
        clock.now += 1.0
        return evaluate(state, batches)

    monkeypatch.setattr(budgets, "train_step", step_of_half_a_second)
    monkeypatch.setattr(budgets, "evaluate", evaluation_of_a_second)
    steps, budget = plan_steps(state, 100.0, clock=clock, timer=clock)
    assert (budget.step_seconds, budget.evaluation_seconds, budget.final_seconds) == (0.5, 1.0, 1.0)
    assert steps * 0.5 + 10 * 1.0 + 1.0 + RESERVE_SECONDS + 1.0 == pytest.approx(100.0 - clock.now, abs=1)
    with pytest.raises(UsageError, match=r"too short for a single step of 0\.5 s.*--budget"):
        plan_steps(state, clock.now + 9.0, clock=clock, timer=clock)


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_a_machine_that_changes_its_speed_gets_a_new_plan_and_ends_in_time(state, clock, monkeypatch, factor):
    """Steps took one second when they were timed, and take `factor` seconds in the run."""
    train_step = loop.train_step

    def step_of_changed_speed(state, step):
        clock.now += factor
        return train_step(state, step)

    monkeypatch.setattr(loop, "train_step", step_of_changed_speed)
    budget = budget_of(100.0, clock)
    planned = budget.steps_left(state.config.train, 0)
    state.set_max_steps(planned)
    loop.train_loop(state, None, QuietDisplay(), StopRequest(), budget, clock)
    steps = state.counters.step
    assert (steps < planned) == (factor > 1)
    assert steps == state.run.config().train.max_steps
    assert 90 < clock.now <= 100  # the planned steps take four times, or a quarter, of the budget
