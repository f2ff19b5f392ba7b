"""Series: finite values in order, and downsampled."""

import math
from dataclasses import replace

from recordings import record, records_of

from tokenloom.metrics import METRICS
from tokenloom.reporting.series import downsample, lowest, read_series, tokens_per_epoch

TRAIN_LOSS, VAL_LOSS = METRICS["train_loss"], METRICS["val_loss"]


def test_a_series_holds_finite_values_in_order_of_steps():
    records = [*reversed(records_of(3)), record(4, train_loss=math.inf), record(5)]
    assert [point.step for point in read_series(records, TRAIN_LOSS)] == [1, 2, 3]


def test_the_best_point_is_the_earliest_of_the_lowest():
    points = read_series([record(step, val_loss=value) for step, value in [(1, 3), (2, 2), (3, 2)]], VAL_LOSS)
    best = lowest(points)
    assert best is not None
    assert best.step == 2
    assert lowest([]) is None


def test_downsampling_keeps_every_spike_and_the_mean():
    records = records_of(1000, validation=False)
    records[500] = replace(records[500], train_loss=99.0)
    buckets = downsample(read_series(records, TRAIN_LOSS), 50)
    assert len(buckets) == 50
    assert max(bucket.high for bucket in buckets) == 99.0
    mean = sum(record.train_loss for record in records) / 1000
    assert math.isclose(sum(bucket.value for bucket in buckets) / 50, mean, rel_tol=1e-12)  # equal buckets


def test_the_tokens_in_an_epoch_follow_from_the_latest_point():
    assert tokens_per_epoch(read_series(records_of(90), TRAIN_LOSS)) == 9 * 512
    assert tokens_per_epoch([]) is None
