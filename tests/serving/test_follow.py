"""Following a run: what is new in its files, charts of very many records, and what it costs."""

import json
import math
import os
import time

import pytest

from tokenloom.growing_file import read_appended
from tokenloom.metrics import MetricsRecord
from tokenloom.reporting.history import headline_figures, read_history
from tokenloom.reporting.run_table import read_row
from tokenloom.run_folder import JsonlWriter, RunFolder, truncate_jsonl
from tokenloom.run_records import RunSummary
from tokenloom.serving.follow import FollowedRuns
from tokenloom.serving.metric_columns import MAX_POINTS, MetricColumns
from tokenloom.serving.metric_lines import parse_records, parse_table


@pytest.fixture
def run(tmp_path) -> RunFolder:
    from small_runs import random_model, save_run

    return RunFolder(save_run(tmp_path / "story", random_model()))


def record(step: int, **values: float) -> MetricsRecord:
    return MetricsRecord(step=step, tokens=step * 8, epoch=step / 10, seconds=step / 2, **values)


def write(run: RunFolder, *records: MetricsRecord) -> None:
    writer = JsonlWriter(run.metrics_file)
    for one in records:
        writer.write(one.to_json())
    writer.close()


def write_many(run: RunFolder, count: int, values: str) -> None:
    """Records of so many steps with the same values."""
    line = '{{"step": {}, "tokens": {}, "epoch": 1.5, "seconds": 2.5, {}}}\n'
    run.metrics_file.write_text("".join(line.format(step, step * 8, values) for step in range(1, count + 1)))


def test_records_are_given_once_and_again_after_a_resumed_run_replaced_them(run):
    followed = FollowedRuns()
    write(run, record(1, train_loss=3.0), record(2, train_loss=2.5))
    first = followed.records(run, None)
    assert [one["train/loss"] for one in first.items] == [3.0, 2.5]
    assert followed.records(run, first.cursor).items == []
    write(run, record(3, train_loss=2.0, val_loss=2.1))
    second = followed.records(run, first.cursor)
    assert (len(second.items), second.items[0]["val/loss"], second.reset) == (1, 2.1, False)
    truncate_jsonl(run.metrics_file, 2)  # as a resumed run does
    write(run, record(3, train_loss=1.5))
    third = followed.records(run, second.cursor)
    assert ([one["train/loss"] for one in third.items], third.reset) == ([3.0, 2.5, 1.5], True)


def test_samples_are_given_once(run):
    followed, log = FollowedRuns(), JsonlWriter(run.samples_file)
    log.write({"step": 1, "tokens": 8, "seed": 0, "prompt": "a", "text": "b\n"})
    first = followed.samples(run, None)
    assert [sample["text"] for sample in first.items] == ["b\n"]
    with run.samples_file.open("a") as file:
        file.write('{"no": "sample"}\nbroken\n{"step": 2, "prompt": "a", "te')
    assert followed.samples(run, first.cursor).items == []
    log.close()


def test_a_long_file_is_read_in_several_replies(run):
    write_many(run, 20_000, '"train/loss": 1.0, "lr": 0.00123456789')
    followed, steps, cursor, more = FollowedRuns(), [], None, True
    while more:
        reply = followed.records(run, cursor)
        steps += [one["step"] for one in reply.items]
        cursor, more = reply.cursor, reply.more
    assert steps == list(range(1, 20_001))


def test_numbers_that_are_not_finite_are_texts(run):
    write(
        run,
        record(1, train_loss=math.nan),
        record(2, val_loss=1e4, val_perplexity=math.inf),
        record(3, val_loss=math.inf, val_perplexity=math.inf),
    )
    with run.metrics_file.open("a") as file:  # as version 0.1.0 wrote it
        file.write('{"step": 4, "tokens": 1, "epoch": 1, "seconds": 1, "lr": -Infinity, "grad_norm": NaN}\n')
    nan, large, unknown, old = FollowedRuns().records(run, None).items
    assert nan["train/loss"] == "NaN"
    assert (large["val/loss"], large["val/perplexity"]) == (1e4, "Infinity")
    assert (unknown["val/loss"], unknown["val/perplexity"]) == ("NaN", "NaN")  # null in the file: which one is lost
    assert (old["lr"], old["grad_norm"]) == ("-Infinity", "NaN")
    series = FollowedRuns().series(run, None, 0, math.inf, 10).series
    assert (series["val/loss"].values, series["val/loss"].non_finite) == ([1e4], [(3, "NaN")])
    assert series["train/loss"].to_json()["non_finite"] == [{"step": 1, "value": "NaN"}]


@pytest.mark.parametrize(
    "line", [b"x", b"[]", b"1,2", b'{"step": "1"}', b'{"step": true}', b"\xff", b"[" * 10**5, b'{"step": 1']
)
def test_lines_that_are_no_record_are_left_out(line):
    whole = json.dumps(record(1, train_loss=2.0).to_json()).encode()
    assert [one["train/loss"] for one in parse_records([whole, line, whole])] == [2.0, 2.0]


def test_an_integer_of_any_size_is_a_number():
    line = b'{"step": 1, "tokens": 1, "epoch": 1, "seconds": 1, "lr": 1' + b"0" * 4000 + b"}"
    assert parse_records([line])[0]["lr"] == math.inf


def test_a_table_has_the_numbers_of_the_records():
    lines = [
        b'{"step": 1, "tokens": 8, "epoch": 0.5, "seconds": 1, "train/loss": 3, "other": 1, "lr": null}',
        b'{"step": 2, "tokens": 16, "epoch": 1, "seconds": 2, "val/loss": 1e4, "val/perplexity": null}',
        b'{"step": 3, "tokens": 24, "epoch": 1, "seconds": 3, "train/loss": "2", "lr": true}',
        b'{"step": null, "tokens": 32, "epoch": 1, "seconds": 4, "train/loss": 9}',
        b"[1]",
        b'{"seconds": 5, "epoch": 2, "tokens": 40, "step": 5, "train/loss": 1.5, "lr": 1' + b"0" * 400 + b"}",
        b'{"step": 6, "tokens": 48, "epoch": 2, "seconds": 6, "val/loss": null, "val/perplexity": null}',
    ]
    for given in (lines, [*lines, b'{"step": 7, "tok']):  # the latter is read line by line
        records, table = parse_records(given), parse_table(given)
        assert [record["step"] for record in records] == table.axes["step"].tolist() == [1, 2, 3, 5, 6]
        found = {
            key: dict(zip(rows.tolist(), values.tolist(), strict=True)) for key, (rows, values) in table.metrics.items()
        }
        expected = {
            key: {row: record[key] for row, record in enumerate(records) if key in record}
            for key in ("train/loss", "lr", "val/loss", "val/perplexity")
        }
        assert repr(found) == repr({key: expected[key] for key in found})
        assert found["train/loss"] == {0: 3.0, 3: 1.5}
        assert (found["lr"][3], found["val/perplexity"][1]) == (math.inf, math.inf)
    assert len(parse_table([b"x"]).axes["step"]) == 0


def test_metrics_of_the_same_records_share_their_axes(run):
    write(run, *(record(step, train_loss=1.0, lr=0.1, val_loss=2.0 if step % 2 else None) for step in range(1, 5)))
    reply = FollowedRuns().series(run, None, 0, math.inf, 10).to_json()
    places = {key: series["axes"] for key, series in reply["series"].items()}
    assert places["train/loss"] == places["lr"] != places["val/loss"]
    assert [reply["axes"][places[key]]["step"] for key in ("lr", "val/loss")] == [[1, 2, 3, 4], [1, 3]]


def test_few_points_are_sent_as_they_are(run):
    write(run, *(record(step, train_loss=10 / step) for step in range(1, 101)))
    series = FollowedRuns().series(run, ["train/loss"], 10, 20, 5).series["train/loss"]
    assert series.axes["step"] == list(range(10, 21))
    assert series.values == [10 / step for step in range(10, 21)]
    assert (series.count, series.low, series.to_json()["bucketed"]) == (11, None, False)
    assert series.axes["tokens"] == [step * 8 for step in range(10, 21)]


def test_buckets_keep_every_spike_and_a_zoom_shows_the_points(run):
    count, spikes = 3 * MAX_POINTS, {17: 1e3, 40_123: -1e3}
    write_many(run, count, '"train/loss": 1.0')
    lines = run.metrics_file.read_text().splitlines()
    for step, value in spikes.items():
        lines[step - 1] = lines[step - 1].replace("1.0", str(value))
    run.metrics_file.write_text("\n".join(lines) + "\n")
    followed = FollowedRuns()
    series = followed.series(run, ["train/loss"], 0, math.inf, 700).series["train/loss"]
    assert (series.count, len(series.values), len(series.axes["epoch"])) == (count, 700, 700)
    assert (max(series.high), min(series.low)) == (1e3, -1e3)
    sizes = [count // 700] * 700
    mean = sum(value * size for value, size in zip(series.values, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(1.0, abs=0.01)
    assert all(low <= mean <= high for low, mean, high in zip(series.low, series.values, series.high, strict=True))
    assert series.axes["step"] == sorted(series.axes["step"])
    zoomed = followed.series(run, ["train/loss"], 10, 30, 700).series["train/loss"]
    assert dict(zip(zoomed.axes["step"], zoomed.values, strict=True))[17] == 1e3


def test_columns_are_those_of_the_whole_file_after_every_change(run):
    columns = MetricColumns(run.metrics_file)
    columns.update()
    assert (len(columns), columns.latest(), columns.lowest("val/loss"), columns.keys()) == (0, None, None, [])
    for step in range(1, 30):
        write(run, record(step, train_loss=1 / step, **({"val_loss": abs(step - 8.5)} if step % 4 == 0 else {})))
        if step == 20:
            truncate_jsonl(run.metrics_file, 12)
        columns.update()
        figures = headline_figures(read_history(run.path))
        latest, best = columns.latest(), columns.lowest("val/loss")
        assert latest is not None
        assert (latest.step, latest.train_loss, latest.val_loss) == (
            figures.steps,
            figures.train_loss,
            figures.val_loss,
        )
        assert (best and best.step, best and best.value) == (figures.best_step, figures.best_val_loss)
    assert len(columns) == 12 + 9


def test_the_row_of_a_followed_run_is_that_of_the_table(run):
    followed = FollowedRuns()
    assert followed.row("story", run).to_json() == read_row("story", run, time.time()).to_json()
    write(run, record(1, train_loss=2.0), record(2, train_loss=1.0, val_loss=1.5, val_perplexity=4.5))
    assert followed.row("story", run).to_json() == read_row("story", run, time.time()).to_json()
    run.write_summary(RunSummary(run="x", val_loss=1.25, parameters=5))
    row = followed.row("story", run)
    assert row.to_json() == read_row("story", run, time.time()).to_json()
    assert (row.figures.val_loss, row.status.state) == (1.25, "stopped")
    run.config_file.write_text("[train\n")
    assert "config.toml" in (followed.row("story", run).problem or "")


def test_unchanged_files_are_not_read_again(run, monkeypatch):
    write(run, record(1, train_loss=2.0))
    followed = FollowedRuns()
    followed.row("story", run)
    monkeypatch.setattr(RunFolder, "config", lambda _: pytest.fail("the configuration was read again"))
    before = read_appended(run.metrics_file).cursor
    write(run, record(2, train_loss=1.0))
    assert followed.row("story", run).figures.train_loss == 1.0
    os.utime(run.metrics_file)
    assert followed.records(run, before).items[0]["step"] == 2


def test_a_hundred_thousand_records_open_fast(run):
    write_many(
        run, 100_000, '"train/loss": 2.0123456789, "lr": 0.001, "grad_norm": 0.5, "tokens_per_sec": 900.1, "mfu": 0.4'
    )
    followed, started = FollowedRuns(), time.process_time()
    reply = json.dumps(followed.series(run, None, 0, math.inf, 2000).to_json())
    opened = time.process_time() - started
    write(run, record(100_001, train_loss=2.0))
    started = time.process_time()
    row = followed.row("story", run)
    assert row.figures.steps == 100_001
    again = time.process_time() - started
    assert len(reply) < 1e6
    assert opened < 3  # seconds of CPU time, on a slow machine too
    assert again < opened / 5
