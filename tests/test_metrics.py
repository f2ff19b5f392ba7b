"""Metrics: every value of a record has a row in the table, and survives metrics.jsonl."""

import pytest

from tokenloom.metrics import METRICS, MetricsRecord

POSITION = {"step": 2, "tokens": 16, "epoch": 0.5, "seconds": 1.5}


def test_every_field_of_a_record_is_a_metric():
    assert set(METRICS) == set(MetricsRecord.__dataclass_fields__)
    assert len({metric.key for metric in METRICS.values()}) == len(METRICS)


def test_a_record_is_read_back_from_json_without_unmeasured_and_unsupported_values():
    record = MetricsRecord(step=2, tokens=16, epoch=0.5, seconds=1.5, train_loss=2.0)
    assert record.to_json() == {**POSITION, "train/loss": 2.0}
    assert MetricsRecord.from_json({**record.to_json(), "mfu": None, "of a later version": "x"}) == record


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 2, "tokens": 16, "epoch": 0.5}, "seconds is missing"),
        ({**POSITION, "lr": "high"}, "lr is 'high', not a number"),
        ({**POSITION, "lr": True}, "lr is True, not a number"),
    ],
)
def test_an_invalid_record_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MetricsRecord.from_json(values)


def test_an_updated_record_has_the_latest_value_of_each_metric():
    first = MetricsRecord(step=1, tokens=8, epoch=0.25, seconds=1.0, train_loss=3.0, lr=1e-3)
    second = MetricsRecord(step=2, tokens=16, epoch=0.5, seconds=1.5, val_loss=2.5, lr=0.0)
    expected = MetricsRecord(step=2, tokens=16, epoch=0.5, seconds=1.5, train_loss=3.0, val_loss=2.5, lr=0.0)
    assert first.updated(second) == expected


def test_values_are_formatted_as_the_table_says():
    texts = {field: METRICS[field].text(value) for field, value in {"tokens": 12345, "mfu": 0.3054, "lr": 4e-4}.items()}
    assert texts == {"tokens": "12,345", "mfu": "30.5%", "lr": "0.0004"}
