"""The training loop: the order of its events, and the times that it reports."""

import pytest

from tokenloom.errors import Interrupted
from tokenloom.metrics import MetricsRecord
from tokenloom.training.display import QuietDisplay
from tokenloom.training.interrupt import StopRequest
from tokenloom.training.loop import Stopwatch, train_loop
from tokenloom.training.metrics_log import MetricsLog
from tokenloom.weights.checkpoint import list_checkpoints


class Recorder(QuietDisplay):
    """Keeps the records and the order of events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.records: list[MetricsRecord] = []

    def stepped(self, step, loss, tokens_per_sec) -> None:
        self.events.append(f"step {step}")

    def recorded(self, record) -> None:
        self.events.append("record")
        self.records.append(record)

    def sampled(self, sample) -> None:
        self.events.append("sample")

    def notice(self, text) -> None:
        self.events.append(text.split()[0])


def run_loop(state, stop=None) -> Recorder:
    display, log = Recorder(), MetricsLog(state.run)
    try:
        train_loop(state, log, display, stop or StopRequest())
    finally:
        log.close()
    return display


def test_the_loop_records_samples_and_saves_at_the_configured_intervals(state_of):
    intervals = {"max_steps": 4, "log_interval": 2, "eval_interval": 4, "save_interval": 3}
    state = state_of(train=intervals, sample={"max_new_tokens": 2})
    display = run_loop(state)
    expected = ["step 1", "step 2", "record", "step 3", "saved", "step 4", "record", *["sample"] * 3, "saved"]
    assert display.events == expected
    first, last = display.records
    assert (first.step, first.val_loss) == (2, None)
    assert last.train_loss is not None
    assert last.val_loss == state.counters.best_val_loss
    windows = state.config.train.eval_batches * state.config.train.batch_size
    assert last.val_share == pytest.approx(windows * 16 / (len(state.validation) - 1))
    assert last.muon_lr is not None
    assert state.run.metrics() == display.records
    assert [path.name for path in list_checkpoints(state.run.checkpoints, "best")] == ["best-00000004"]
    samples = state.run.samples()
    assert [sample.seed for sample in samples] == [3, 2, 1]  # the configured one last, as at every evaluation
    assert len({sample.text for sample in samples}) > 1


def test_greedy_samples_have_one_result(state_of):
    state = state_of(train={"max_steps": 1}, sample={"max_new_tokens": 2, "temperature": 0.0})
    assert run_loop(state).events.count("sample") == 1


def test_a_requested_stop_saves_a_checkpoint_and_raises(state):
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted, match=r"stopped at step 1 of 1,000 .*--resume"):
        run_loop(state, stop)
    assert [path.name for path in list_checkpoints(state.run.checkpoints)] == ["step-00000001"]


def test_the_stopwatch_separates_training_from_everything_else():
    times = iter([100.0, 101.0, 105.0, 110.0, 112.0, 120.0])
    stopwatch = Stopwatch(50.0, lambda: next(times))
    with stopwatch.training():  # from 101 to 105
        pass
    with stopwatch.training():  # from 110 to 112
        pass
    assert stopwatch.last == 2.0
    assert [stopwatch.mean_of_last(count) for count in (1, 2, 3)] == [2.0] * 3  # without the first step
    assert stopwatch.take_training() == 6.0
    assert stopwatch.take_training() == 0.0
    assert stopwatch.total() == 70.0
