"""Curves: what was measured, in order and thinned."""

import math

from recordings import records_of

from tokenloom.reporting.series import best, curve, known_levels, thin, tokens_per_epoch


def test_a_curve_holds_finite_values_in_order_of_steps():
    records = [*reversed(records_of(3)), {"step": 4, "tokens": 5, "epoch": 1, "train/loss": math.inf}, {"step": 5}]
    assert [point.step for point in curve(records, "train/loss")] == [1, 2, 3]


def test_the_best_point_is_the_earliest_of_the_lowest():
    points = curve(
        [{"step": s, "tokens": s, "epoch": s, "val/loss": v} for s, v in [(1, 3), (2, 2), (3, 2)]], "val/loss"
    )
    lowest = best(points)
    assert lowest is not None
    assert lowest.step == 2
    assert best([]) is None


def test_thinning_keeps_every_spike_and_the_mean():
    records = records_of(1000, validation=False)
    records[500]["train/loss"] = 99.0
    buckets = thin(curve(records, "train/loss"), 50)
    assert len(buckets) == 50
    assert max(bucket.high for bucket in buckets) == 99.0
    mean = sum(record["train/loss"] for record in records) / 1000
    assert math.isclose(sum(bucket.value for bucket in buckets) / 50, mean, rel_tol=1e-12)  # equal buckets


def test_an_epoch_has_the_tokens_that_the_latest_point_tells():
    assert tokens_per_epoch(curve(records_of(90), "train/loss")) == 9 * 512
    assert tokens_per_epoch([]) is None


def test_only_baselines_that_were_measured_are_levels():
    values = {"a": 1, "b": None, "c": math.nan, "d": 2.0}
    assert known_levels(values, {"a": "A", "b": "B", "c": "C", "e": "E"}) == {"A": 1.0}
    assert known_levels(None, {"a": "A"}) == {}
