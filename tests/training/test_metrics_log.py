"""The logs of a run: readable while it trains, and truncated where a run resumes."""

import json
import sys

import pytest

from tokenloom.errors import MissingExtraError
from tokenloom.metrics import MetricsRecord
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import SampleRecord
from tokenloom.training.metrics_log import MetricsLog


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def log(run):
    opened = MetricsLog(run)
    yield opened
    opened.close()


def record(step, **values):
    return MetricsRecord(step=step, tokens=512 * step, epoch=0.5, seconds=float(step), **values)


def sample(step, text="b", prompt="a"):
    return SampleRecord(step=step, tokens=512 * step, seed=1, prompt=prompt, text=text)


def steps_in(records) -> list[int]:
    return [record.step for record in records]


def test_a_record_is_a_line_of_json_that_can_be_read_immediately(run, log):
    log.record(record(1, train_loss=1 / 3, muon_lr=0.02))
    expected = {"step": 1, "tokens": 512, "epoch": 0.5, "seconds": 1.0, "train/loss": 1 / 3, "muon_lr": 0.02}
    assert json.loads(run.metrics_file.read_text()) == expected
    log.record(record(2))
    assert run.metrics() == [record(1, train_loss=1 / 3, muon_lr=0.02), record(2)]


def test_samples_can_have_any_text(run, log):
    log.sample(sample(5, text="Zeile\nzwei\u2028 ✨ \x00 \ud800", prompt=""))
    assert run.samples() == [sample(5, text="Zeile\nzwei\u2028 ✨ \x00 \ud800", prompt="")]
    assert run.metrics() == []


def test_a_new_run_starts_with_empty_files(run):
    for file in (run.metrics_file, run.samples_file):
        file.write_text('{"step": 3}\n')
    MetricsLog(run).close()
    assert [file.read_text() for file in (run.metrics_file, run.samples_file)] == ["", ""]
    assert sorted(run.path.iterdir()) == [run.metrics_file, run.samples_file]


def test_a_resumed_run_drops_the_records_after_its_checkpoint(run):
    log = MetricsLog(run)
    for step in range(1, 8):
        log.record(record(step, train_loss=1 / step))
        log.sample(sample(step))
    log.close()
    uninterrupted = run.metrics_file.read_bytes()

    log = MetricsLog(run, first_step=4)
    assert steps_in(run.metrics()) == steps_in(run.samples()) == [1, 2, 3, 4]
    for step in range(5, 8):
        log.record(record(step, train_loss=1 / step))
    log.close()
    assert run.metrics_file.read_bytes() == uninterrupted


def test_tensorboard_gets_every_metric_and_every_sample(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(run, tensorboard=True)
    for step in (10, 20):
        log.record(record(step, train_loss=1 / step, lr=0.5))
    log.sample(sample(20, prompt="Once", text="Once upon a time"))
    log.close()

    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"epoch", "train/loss", "lr"}
    assert [event.step for event in events.Scalars("train/loss")] == [10, 20]
    assert events.Scalars("train/loss")[1].value == pytest.approx(1 / 20)
    assert len(events.Tags()["tensors"]) == 1


def test_without_tensorboard_there_is_no_folder_of_events(run):
    MetricsLog(run).close()
    assert not run.tensorboard.exists()


def test_a_missing_tensorboard_names_the_extra_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r'pip install "tokenloom\[track\]"'):
        MetricsLog(run, tensorboard=True)
    assert list(run.path.iterdir()) == []
