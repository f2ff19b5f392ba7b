"""Time budgets: parsed, planned from a few measured times, and corrected if the machine becomes slower or faster."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tokenloom.compute.parallel import World
from tokenloom.config import TrainConfig
from tokenloom.errors import UsageError
from tokenloom.training import budget as budgets
from tokenloom.training import loop
from tokenloom.training.budget import (
    FEW_STEPS,
    RESERVE_SECONDS,
    Limit,
    TimeBudget,
    few_steps_notice,
    parse_budget,
    plan_steps,
)
from tokenloom.training.display import QuietDisplay
from tokenloom.training.interrupt import StopRequest
from tokenloom.training.schedule import learning_rate
from tokenloom.training.step import Counters, StepResult
from tokenloom.weights.checkpoint import list_checkpoints, open_checkpoint


class FakeClock:
    """A clock that a test moves forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return FakeClock()


def limit_of(deadline, seconds=60.0):
    return Limit(deadline, seconds)


def budget_of(seconds, clock=lambda: 0.0, **costs):
    costs = {"step_seconds": 1.0, "evaluation_seconds": 0.0, "final_seconds": 0.0} | costs
    return TimeBudget(limit=limit_of(seconds), seconds=100.0, clock=clock, **costs)


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
        ({}, 0, 1.0, 100),
        ({"final_seconds": 20.0}, 0, 1.0, 80),
        ({"evaluation_seconds": 2.0}, 0, 1.0, 80),  # ten evaluations
        ({"evaluation_seconds": 2.0}, 60, 1.0, 86),  # seven of ten are left: 100 - 20 · 86/146
        ({}, 40, 2.0, 50),
        ({"final_seconds": 10.0}, 40, 2.0, 40),  # the final evaluation takes twice as long as well
    ],
)
def test_steps_that_fit(costs, step, step_seconds, steps):
    budget = budget_of(101.0 + RESERVE_SECONDS + 0.5, **costs)  # a hundredth of the budget is reserved
    assert budget.reviewed(step, step_seconds).steps_left(TrainConfig(), step) == pytest.approx(steps, abs=2)


def test_the_evaluation_interval_is_taken_into_account():
    budget = budget_of(101.5 + RESERVE_SECONDS, evaluation_seconds=5.0)
    assert budget.steps_left(TrainConfig(eval_interval=5), 0) == 50


def test_the_plan_is_reviewed_before_the_decay_and_several_times_in_it():
    train = TrainConfig(max_steps=110, warmup_steps=10, decay_fraction=0.6)  # the decay begins at step 50
    budget, reviews = budget_of(100.0), []
    for step in range(1, 110):
        if budget.is_review_due(train, step):
            reviews.append(step)
            budget = replace(budget, step=step)
    assert reviews == [44, 70, 86, 95, 101, 104, 106, 107, 108, 109]


def test_the_plan_is_reviewed_when_a_share_of_the_training_time_is_used_up():
    train = TrainConfig(max_steps=1000)
    due = {left: budget_of(left, final_seconds=17.0).is_review_due(train, 1) for left in (69.0, 67.0)}
    assert due == {69.0: False, 67.0: True}  # 100 - 0.4 · (100 - 17 - 3)


@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_a_plan_of_a_few_steps_is_reviewed_after_its_first_one(max_steps):
    assert budget_of(100.0).is_review_due(TrainConfig(max_steps=max_steps), 1)


@pytest.mark.parametrize("max_steps", [*range(1, 45), 999, 100_000])
@pytest.mark.parametrize("step", [0, 7])
def test_as_many_evaluations_are_planned_as_the_loop_makes(max_steps, step):
    train = TrainConfig(max_steps=step + max_steps)
    last = train.max_steps
    expected = sum(done % train.eval_every == 0 or done == last for done in range(step + 1, last + 1))
    assert budgets._evaluations(train, step) == expected


class FakeMachine:
    """Steps and evaluations of a tiny model; their times on the clock are those of another machine."""

    def __init__(
        self, clock: FakeClock, monkeypatch, *, step_seconds, evaluation_seconds=0.0, is_training=True
    ) -> None:
        """Seconds of each step, numbered over timed and trained ones, and of an evaluation of the whole text.

        Steps that are not training are fast; they only have learning rates.
        """
        self.clock, self.step_seconds, self.evaluation_seconds = clock, step_seconds, evaluation_seconds
        self.steps = 0
        self.rates: list[float] = []
        """Of AdamW, in all steps that were not only timed."""
        for module in (budgets, loop):
            work = module.train_step if is_training else step_without_training
            monkeypatch.setattr(module, "train_step", self._slowed(work, is_recorded=module is loop))
            monkeypatch.setattr(module, "evaluate", self._slowed_evaluation(module.evaluate))

    def _slowed(self, train_step, is_recorded):
        def step(*arguments):
            self.clock.now += self.step_seconds(self.steps)
            self.steps += 1
            result = train_step(*arguments)
            if is_recorded:
                self.rates.append(result.lr)
            return result

        return step

    def _slowed_evaluation(self, evaluate):
        def evaluation(state, batches=None):
            measurement = evaluate(state, batches)
            self.clock.now += self.evaluation_seconds * measurement.tokens / (len(state.validation) - 1)
            return measurement

        return evaluation


def step_without_training(state, step, votes=tuple):
    return StepResult(1.0, learning_rate(step, state.config.train), None, 1.0, votes())


class Corrections(QuietDisplay):
    """Counts how often the plan is corrected."""

    def __init__(self) -> None:
        self.count = 0

    def replanned(self, max_steps: int) -> None:
        self.count += 1


def plan_and_train(state, seconds, clock, display=None) -> int:
    """Train within a budget; returns the number of planned steps."""
    planned, budget = plan_steps(state, limit_of(seconds, seconds), clock=clock, timer=clock)
    state.change_settings(max_steps=planned)
    loop.train_loop(state, None, display or QuietDisplay(), StopRequest(), budget, clock)
    clock.now += budget.final_seconds
    return planned


def test_a_resumed_run_is_planned_from_its_checkpoint_on_and_ends_on_time(state_of, clock, monkeypatch):
    settings = {"max_steps": 20, "save_interval": 20, "eval_interval": 10**6}
    state = state_of(train=settings)
    machine = FakeMachine(clock, monkeypatch, step_seconds=lambda _: 1.0, evaluation_seconds=1.0, is_training=False)
    loop.train_loop(state, None, QuietDisplay(), StopRequest())
    checkpoint = open_checkpoint(list_checkpoints(state.run.checkpoints)[-1])
    resumed, started = state_of(checkpoint=checkpoint, train=settings), clock.now
    planned = plan_and_train(resumed, started + 100.0, clock)
    assert resumed.counters.step == planned
    assert 85 < planned - 20 < 100
    assert started + 85 < clock.now <= started + 100
    assert machine.rates[20] == resumed.config.train.learning_rate
    assert machine.rates[-1] < 0.1 * resumed.config.train.learning_rate


def test_the_plan_follows_from_measured_times(state_of, clock, monkeypatch):
    state = state_of(train={"eval_batches": None})
    FakeMachine(clock, monkeypatch, step_seconds=lambda _: 0.5, evaluation_seconds=1.0)
    steps, budget = plan_steps(state, limit_of(100.0), clock=clock, timer=clock)
    assert (budget.step_seconds, budget.evaluation_seconds) == pytest.approx((0.5, 1.0))
    assert budget.final_seconds == pytest.approx(1.0)
    assert clock.now < 4  # a batch of the evaluation, and at most 3% of the budget for the timed steps
    evaluations = budgets._evaluations(state.config.train.model_copy(update={"max_steps": steps}), 0)
    assert steps * 0.5 + evaluations + 1.0 + RESERVE_SECONDS + 1.0 == pytest.approx(100.0 - clock.now, abs=0.5)


@pytest.mark.parametrize(("step_seconds", "timed"), [(0.1, 33), (1.0, 4), (15.0, 2), (30.0, 1), (300.0, 1)])
def test_slow_steps_are_timed_once_or_twice(state, clock, monkeypatch, step_seconds, timed):
    machine = FakeMachine(clock, monkeypatch, step_seconds=lambda _: step_seconds)
    plan_steps(state, limit_of(109.0), clock=clock, timer=clock)
    assert machine.steps == pytest.approx(timed, abs=1 if timed > 10 else 0)


@pytest.mark.parametrize(("step_seconds", "evaluation_seconds"), [(30.0, 60.0), (300.0, 0.0), (0.1, 3000.0)])
def test_half_a_minute_is_enough_to_train(state, clock, monkeypatch, step_seconds, evaluation_seconds):
    machine = FakeMachine(
        clock, monkeypatch, step_seconds=lambda _: step_seconds, evaluation_seconds=evaluation_seconds
    )
    plan_steps(state, limit_of(31.0), clock=clock, timer=clock)
    timed = machine.steps
    assert plan_and_train(state, clock.now + 31.0, clock) >= 1
    assert state.counters.step >= 1
    assert timed <= 12


def test_a_budget_in_which_nothing_fits_is_refused(state, clock, monkeypatch):
    FakeMachine(clock, monkeypatch, step_seconds=lambda _: 20.0)
    with pytest.raises(UsageError, match=r"^29\.0 s of the budget are left, .* single step of 20\.0 s.*--budget"):
        plan_steps(state, limit_of(29.0, 29.0), clock=clock, timer=clock)
    before = clock.now
    with pytest.raises(UsageError, match=r"ended 5 s ago, before training could start.*again"):
        plan_steps(state, limit_of(clock.now - 5.0, 29.0), clock=clock, timer=clock)
    assert clock.now == before


def test_a_budget_of_half_a_minute_is_never_refused_however_long_the_preparation_took(state, clock, monkeypatch):
    FakeMachine(clock, monkeypatch, step_seconds=lambda _: 2.0)
    assert plan_steps(state, limit_of(clock.now - 50.0, 30.0), clock=clock, timer=clock)[0] == 1


def test_a_plan_of_few_steps_says_why_unless_the_user_limits_the_steps():
    budget = budget_of(100.0, step_seconds=9.0, evaluation_seconds=2.0, final_seconds=3.0)
    assert few_steps_notice(3, budget) == (
        "1 min 40 s of the budget are left for 3 steps of 9 s and for evaluations, of which the last takes 5.0 s. "
        "Use a longer --budget, or run the same command again: prepared data is reused."
    )
    assert few_steps_notice(FEW_STEPS, budget) == ""
    assert few_steps_notice(3, replace(budget, limit=replace(budget.limit, most_steps=3))) == ""
    assert few_steps_notice(1, replace(budget, seconds=-1.0)).startswith("preparation has used up the budget")


@pytest.mark.parametrize("seconds", [20.0, 1000.0])
def test_not_more_steps_are_made_than_the_limit_allows(state, clock, monkeypatch, seconds):
    FakeMachine(clock, monkeypatch, step_seconds=lambda step: 1.0 if step < 8 else 0.1)
    limit = Limit(seconds, seconds, most_steps=30)
    steps, budget = plan_steps(state, limit, clock=clock, timer=clock)
    assert steps == (30 if seconds > 100 else pytest.approx(12, abs=4))
    state.change_settings(max_steps=steps)
    loop.train_loop(state, None, QuietDisplay(), StopRequest(), budget, clock)
    assert state.counters.step == 30


@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda step: 2.0,  # slow all the time
        lambda step: 1.0 if step < 8 else 4.0,  # slow after it was timed
        lambda step: 1.0 if step < 60 else 5.0,  # slow after the first review
        lambda step: 20.0 if step < 2 else 1.0,  # fast after it was timed: a plan of a few steps grows
        lambda step: 1.0 if step < 8 else 0.25,
        lambda step: 1.0 + 0.5 * (step % 3),
    ],
)
def test_a_machine_that_changes_its_speed_uses_its_budget_and_ends_in_time(state, clock, monkeypatch, step_seconds):
    FakeMachine(clock, monkeypatch, step_seconds=step_seconds, evaluation_seconds=1.0, is_training=False)
    corrections = Corrections()
    plan_and_train(state, 100.0, clock, corrections)
    assert state.counters.step == state.run.config().train.max_steps == state.config.train.max_steps
    assert 85 < clock.now <= 102  # 2 % too much is not corrected; 5 s do not suffice for another step of 5 s
    assert corrections.count <= 4


@pytest.mark.parametrize(
    "step_seconds",
    [
        lambda step: 0.59 if 600 <= step < 1000 else 0.49,  # slow only while the review before the decay measures it
        lambda step: 1.0 if step < 560 else 0.5,
        lambda step: 1.0 if step < 560 else 0.1,
        lambda step: 1.0 if step < 560 else 5.0,
        lambda step: 1.0 if step < 1000 else 5.0,
        lambda step: 1.0 if step < 560 or step >= 650 else 3.0,
    ],
)
def test_a_run_whose_machine_changes_its_speed_in_the_decay_ends_on_time_at_the_final_rate(
    state_of, clock, monkeypatch, step_seconds
):
    state = state_of(train={"eval_interval": 10**6})
    machine = FakeMachine(clock, monkeypatch, step_seconds=step_seconds, is_training=False)
    plan_and_train(state, 1200.0, clock)
    assert 1160 <= clock.now <= 1200
    peak = state.config.train.learning_rate
    decay = machine.rates[state.config.train.warmup_steps :]
    assert decay[0] == peak
    assert decay == sorted(decay, reverse=True)
    assert decay[-1] < 0.05 * peak


def test_a_change_of_speed_that_is_not_material_changes_nothing(state_of, clock, monkeypatch):
    state = state_of(train={"eval_interval": 10**6})
    FakeMachine(clock, monkeypatch, step_seconds=lambda step: 1.0 if step < 600 else 1.02, is_training=False)
    corrections = Corrections()
    planned = plan_and_train(state, 1200.0, clock, corrections)
    assert corrections.count == 0
    assert state.counters.step == state.config.train.max_steps == planned
    assert state.config.train.earlier_max_steps == ()
    assert 1160 <= clock.now <= 1200


def test_a_run_resumed_from_before_a_change_in_the_decay_repeats_its_rates_and_weights(state_of, clock, monkeypatch):
    state = state_of(train={"save_interval": 8, "eval_interval": 10**6, "keep_checkpoints": 100})
    machine = FakeMachine(clock, monkeypatch, step_seconds=lambda step: 1.0 if step < 31 else 0.5)
    plan_and_train(state, 60.0, clock)
    saved = state.run.config()
    rates = machine.rates[:]
    assert [learning_rate(step, saved.train) for step in range(saved.train.max_steps)] == rates
    change, _ = saved.train.earlier_max_steps[-1]
    path = [path for path in list_checkpoints(state.run.checkpoints) if int(path.name[-8:]) < change][-1]
    resumed = state_of(checkpoint=open_checkpoint(path), **saved.model_dump())
    start = resumed.counters.step
    assert learning_rate(start, saved.train) < saved.train.learning_rate  # in the decay
    loop.train_loop(resumed, None, QuietDisplay(), StopRequest())
    assert machine.rates[len(rates) :] == rates[start:]
    weights = resumed.model.state_dict()
    assert all(weights[name].equal(tensor) for name, tensor in state.model.state_dict().items())


@pytest.mark.parametrize(
    ("is_compiled", "times", "step_seconds"),
    [(True, [30.0, 0.5], 0.5), (True, [0.25, 0.5], 0.25), (False, [0.5, 0.25], 0.25), (False, [30.0], 30.0)],
)
def test_an_estimate_leaves_out_the_time_of_compiling(monkeypatch, is_compiled, times, step_seconds):
    timed = iter(times)
    monkeypatch.setattr(budgets, "_seconds", lambda work, timer: next(timed))
    state = SimpleNamespace(
        config=SimpleNamespace(train=TrainConfig(max_steps=110, compile=is_compiled)),
        counters=Counters(step=10),
        optimizer=SimpleNamespace(zero_grad=lambda: None),
        world=World(),
    )
    assert budgets.estimate_seconds(state) == 100 * step_seconds
    assert list(timed) == []
