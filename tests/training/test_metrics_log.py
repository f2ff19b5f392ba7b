"""Records of a run: there as soon as they are made, and cut back to where a run goes on."""

import json
import sys

import pytest

from tokenloom.errors import MissingExtraError
from tokenloom.training.metrics_log import METRICS, SAMPLES, MetricsLog, cut_back, read_records


@pytest.fixture
def tracker(tmp_path):
    opened = MetricsLog(tmp_path / "run")
    yield opened
    opened.close()


def steps_in(path) -> list[int]:
    return [record["step"] for record in read_records(path)]


def test_a_record_is_a_line_of_json_that_can_be_read_at_once(tmp_path, tracker):
    first = {"step": 1, "train/loss": 1 / 3, "mfu": None}
    tracker.record(first)
    assert (tmp_path / "run" / METRICS).read_text() == json.dumps(first) + "\n"
    tracker.record({"step": 2})
    assert read_records(tmp_path / "run" / METRICS) == [first, {"step": 2}]


def test_samples_of_any_text_have_a_file_of_their_own(tmp_path, tracker):
    sample = {"step": 5, "prompt": "", "text": "Zeile\nzwei\u2028 ✨ \x00 \ud800"}
    tracker.sample(sample)
    assert read_records(tmp_path / "run" / SAMPLES) == [sample]
    assert read_records(tmp_path / "run" / METRICS) == []


def test_a_fresh_run_starts_with_empty_files(tmp_path):
    for name in (METRICS, SAMPLES):
        (tmp_path / name).write_text('{"step": 3}\n')
    MetricsLog(tmp_path).close()
    assert [(tmp_path / name).read_text() for name in (METRICS, SAMPLES)] == ["", ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, SAMPLES]


def test_a_resumed_run_forgets_what_came_after_its_checkpoint_and_goes_on(tmp_path):
    tracker = MetricsLog(tmp_path)
    for step in range(1, 8):
        tracker.record({"step": step, "train/loss": 1 / step})
        tracker.sample({"step": step, "prompt": "", "text": str(step)})
    tracker.close()
    whole = (tmp_path / METRICS).read_bytes()

    tracker = MetricsLog(tmp_path, first_step=4)
    assert steps_in(tmp_path / METRICS) == steps_in(tmp_path / SAMPLES) == [1, 2, 3, 4]
    for step in range(5, 8):
        tracker.record({"step": step, "train/loss": 1 / step})
    tracker.close()
    assert (tmp_path / METRICS).read_bytes() == whole  # byte for byte as without the interruption


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    path = tmp_path / METRICS
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "train/lo')
    assert steps_in(path) == [1, 2]
    cut_back(path, 9)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_cutting_back_keeps_the_records_up_to_a_step(tmp_path):
    path = tmp_path / METRICS
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 2, 5)))
    cut_back(path, 2)
    assert steps_in(path) == [1, 2, 2]
    assert [file.name for file in tmp_path.iterdir()] == [METRICS]


def test_where_there_is_no_file_there_are_no_records(tmp_path):
    assert read_records(tmp_path / "absent") == []
    cut_back(tmp_path / METRICS, 5)
    assert (tmp_path / METRICS).read_text() == ""


def test_tensorboard_gets_every_number_and_every_sample(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = MetricsLog(tmp_path, tensorboard=True)
    for step in (10, 20):
        tracker.record({"step": step, "tokens": 512, "seconds": 1.0, "train/loss": 1 / step, "lr": 0.5, "mfu": None})
    tracker.sample({"step": 20, "prompt": "Once", "text": "Once upon a time"})
    tracker.close()

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "lr"}
    assert [event.step for event in events.Scalars("train/loss")] == [10, 20]
    assert events.Scalars("train/loss")[1].value == pytest.approx(1 / 20)
    assert len(events.Tags()["tensors"]) == 1


def test_without_tensorboard_nothing_of_it_is_there(tmp_path):
    MetricsLog(tmp_path).close()
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_tensorboard_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r'pip install "tokenloom\[track\]"'):
        MetricsLog(tmp_path, tensorboard=True)
    assert list(tmp_path.iterdir()) == []
