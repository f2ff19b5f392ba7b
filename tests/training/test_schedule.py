"""The learning rate at characteristic steps, for every schedule."""

import math

import pytest

from tokenloom.config import TrainConfig
from tokenloom.training.schedule import learning_rate, muon_learning_rate, settings_at

SHAPES = ["constant", "linear", "cosine", "wsd"]


def config_of(schedule, **options) -> TrainConfig:
    values = {"max_steps": 100, "warmup_steps": 20, "learning_rate": 1.0, "min_lr": 0.1, "decay_fraction": 0.5}
    return TrainConfig(schedule=schedule, **{**values, **options})


def rates(config) -> list[float]:
    return [learning_rate(step, config) for step in range(config.max_steps)]


@pytest.mark.parametrize("schedule", SHAPES)
def test_the_warmup_rises_linearly_to_the_peak(schedule):
    config = config_of(schedule, initial_lr=0.2)
    rise = rates(config)[:20]
    assert rise[0] == pytest.approx(0.2 + 0.8 / 20)  # the first step is already above initial_lr
    assert rise[9] == pytest.approx(0.6)
    assert rise[19] == pytest.approx(1.0)
    assert [b - a for a, b in zip(rise, rise[1:], strict=False)] == pytest.approx([0.04] * 19)


@pytest.mark.parametrize("schedule", SHAPES)
def test_without_a_warmup_it_starts_at_the_peak(schedule):
    assert learning_rate(0, config_of(schedule, warmup_steps=0)) == 1.0


@pytest.mark.parametrize(
    ("schedule", "after_warmup", "quarter", "half", "three_quarters", "last", "end"),
    [
        ("constant", 1, 1, 1, 1, 1, 1),
        ("linear", 1, 0.775, 0.55, 0.325, 0.1 + 0.9 / 80, 0.1),
        ("cosine", 1, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1 + 0.45 * (1 - math.sqrt(0.5)), None, 0.1),
        ("wsd", 1, 1, 1, 0.55, 0.1 + 0.9 / 40, 0.1),
    ],
)
def test_the_decay_follows_the_schedule(schedule, after_warmup, quarter, half, three_quarters, last, end):
    config = config_of(schedule)
    at = {20: after_warmup, 40: quarter, 60: half, 80: three_quarters, 99: last, 100: end}
    at[99] = last or 0.1 + 0.45 * (1 + math.cos(math.pi * 79 / 80))
    for step, expected in at.items():
        assert learning_rate(step, config) == pytest.approx(expected), step


@pytest.mark.parametrize("schedule", SHAPES)
@pytest.mark.parametrize("warmup", [0, 1, 20, 99, 100, 500])
def test_it_stays_within_its_bounds_for_any_warmup(schedule, warmup):
    config = config_of(schedule, warmup_steps=warmup, initial_lr=0.05)
    seen = rates(config)
    assert all(0.05 < rate <= 1.0 for rate in seen)
    fall = seen[warmup:]
    assert fall == sorted(fall, reverse=True)
    assert learning_rate(10**6, config) <= 1.0  # also after the last step


@pytest.mark.parametrize("schedule", SHAPES)
def test_a_run_of_a_single_step_has_a_rate(schedule):
    assert learning_rate(0, config_of(schedule, max_steps=1, warmup_steps=0)) == 1.0
    assert learning_rate(0, config_of(schedule, max_steps=1, warmup_steps=1)) == 1.0


@pytest.mark.parametrize("decay", [0.1, 0.5, 1.0])
def test_wsd_is_stable_and_decays_at_the_end(decay):
    config = config_of("wsd", warmup_steps=0, decay_fraction=decay, min_lr=0.0)
    seen = rates(config)
    assert seen.count(1.0) == pytest.approx(100 * (1 - decay), abs=1)
    assert learning_rate(100, config) == 0.0
    if decay == 1.0:
        assert seen == pytest.approx(rates(config_of("linear", warmup_steps=0, min_lr=0.0)))


def test_muons_rate_is_the_same_fraction_of_its_peak():
    config = config_of("cosine", muon_learning_rate=0.02)
    for step in (0, 5, 19, 20, 50, 99):
        assert muon_learning_rate(step, config) == pytest.approx(0.02 * learning_rate(step, config))


def test_appendix_d_warms_up_over_27_of_135_steps_and_follows_the_cosine_of_the_book():
    """Peak 1e-3, initial and minimum 1e-5; the book's code is written out on the right."""
    config = TrainConfig(
        max_steps=135, warmup_steps=27, schedule="cosine", learning_rate=1e-3, initial_lr=1e-5, min_lr=1e-5
    )
    assert config.warmup_steps == int(0.2 * config.max_steps)
    for step in range(27, 135):
        progress = (step - 27) / (135 - 27)
        book = 1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * progress))
        assert learning_rate(step, config) == pytest.approx(book, rel=1e-12)
    for step in range(27):  # one step ahead of the book, whose first step is made at initial_lr
        book = 1e-5 + (step + 1) * (1e-3 - 1e-5) / 27
        assert learning_rate(step, config) == pytest.approx(book, rel=1e-12)
    assert max(rates(config)) == 1e-3


def test_the_training_of_chapter_5_has_a_constant_rate():
    config = TrainConfig(max_steps=90, schedule="constant", learning_rate=4e-4, warmup_steps=0)
    assert set(rates(config)) == {4e-4}


@pytest.mark.parametrize("schedule", SHAPES)
@pytest.mark.parametrize(("change", "before", "after"), [(60, 100, 70), (60, 100, 150), (99, 100, 300), (15, 100, 40)])
def test_a_changed_number_of_steps_keeps_the_rates_before_it_and_continues_from_them(schedule, change, before, after):
    config = config_of(schedule, max_steps=after, earlier_max_steps=((change, before),))
    seen, planned = rates(config), rates(config_of(schedule, max_steps=before))
    assert seen[:change] == planned[:change]
    assert seen[20:] == sorted(seen[20:], reverse=True)
    # A linear decay over the steps that are left falls by this much; a cosine at most twice as fast.
    assert seen[change - 1] - seen[change] <= 2 * seen[change - 1] / (after - change + 1)
    assert learning_rate(after, config) == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_in_the_decay_of_wsd_a_change_makes_it_linear_from_the_rate_at_the_change():
    config = config_of("wsd", max_steps=90, earlier_max_steps=((70, 100),), min_lr=0.0)
    last = learning_rate(69, config)
    assert last == pytest.approx(31 / 40)
    assert [learning_rate(step, config) for step in (70, 80, 89)] == pytest.approx(
        [last * (90 - step) / 21 for step in (70, 80, 89)]
    )


def test_rates_do_not_depend_on_later_changes():
    """A resumed run repeats the steps before a change bit by bit."""
    changes = ((30, 100), (55, 130), (56, 90))
    final = config_of("cosine", max_steps=120, earlier_max_steps=changes)
    for number, (change, max_steps) in enumerate(changes):
        earlier = config_of("cosine", max_steps=max_steps, earlier_max_steps=changes[:number])
        assert [learning_rate(step, earlier) for step in range(change)] == rates(final)[:change]
        assert settings_at(change - 1, final) == earlier
    assert settings_at(56, final) is final
