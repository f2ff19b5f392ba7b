"""Tokens per second of servers: cases are recorded once, and become tables."""

import json
import shlex

import pytest
import records
import results
import serving
import streams
import turns


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """A file for the results, on a machine named M."""
    monkeypatch.setattr(records, "machine", lambda: "M")
    monkeypatch.setattr(records, "commit", lambda: "c0ffee1")
    monkeypatch.setattr(records, "today", lambda: "2026-01-01")
    return tmp_path / "serving.jsonl"


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_rate_of_each_window_counts_what_was_received_in_it():
    received = [(9.9, 5), (10.0, 1), (10.4, 2), (10.6, 8), (11.1, 100)]
    assert streams.rates(received, start=10.0, windows=2, seconds=0.5) == [6.0, 16.0]
    with pytest.raises(RuntimeError, match="no tokens"):
        streams.rates(received, start=20.0, windows=2, seconds=0.5)


def test_a_case_is_measured_once_for_a_commit_and_only_if_there_is_time(recorded, monkeypatch, capsys):
    session = serving.Session(recorded, serving.time.monotonic() + 30)
    for _ in range(2):
        session.measure({"part": "tokens", "streams": 1}, 10, lambda: {"tokens_per_sec": 5.0})
    session.measure({"part": "tokens", "streams": 4}, 60, lambda: {"tokens_per_sec": 5.0})
    assert [run["streams"] for run in lines(recorded)] == [1]
    assert "left out" in capsys.readouterr().err
    monkeypatch.setattr(records, "commit", lambda: "decade2")
    session.measure({"part": "tokens", "streams": 1}, 10, lambda: {"tokens_per_sec": 6.0})
    assert [run["commit"] for run in lines(recorded)] == ["c0ffee1", "decade2"]
    assert session.exit_code == 0


def test_each_turn_is_compared_with_the_one_before_it():
    class Steps:
        speed = 1.0
        is_on = False

        def during(self, seconds):
            self.speed *= 1.5  # the machine becomes slower and slower
            return [self.speed * seconds, self.speed * seconds * (1.2 if self.is_on else 1.0)]

    steps = Steps()
    result = turns.compare_turns(steps, lambda is_on: setattr(steps, "is_on", is_on), rounds=3, seconds=2)
    assert result["rounds"] == 3
    assert result["cost"] == pytest.approx(1.5 * 1.1 - 1, abs=1e-4)
    assert result["cost_quartiles"] == pytest.approx([1.5 * 1.1 - 1] * 2, abs=1e-4)
    assert not steps.is_on


def test_a_case_that_fails_is_not_recorded(recorded, capsys):
    def fail() -> dict:
        raise RuntimeError("the server did not start")

    session = serving.Session(recorded, serving.time.monotonic() + 30)
    session.measure({"part": "training"}, 10, fail)
    assert session.exit_code == 1
    assert not recorded.exists()
    assert "the server did not start" in capsys.readouterr().err


def test_the_newest_figures_become_tables_and_a_part_of_the_results(recorded, monkeypatch):
    session = serving.Session(recorded, serving.time.monotonic() + 600)
    for streams_, speeds in ((1, (20, 30)), (64, (100, 90.4))):
        for server, speed in zip(serving.SERVERS, speeds, strict=False):
            case = {"part": "tokens", "shape": "124M", "server": server, "streams": streams_}
            session.measure(case, 1, lambda speed=speed: {"tokens_per_sec": speed})
    figures = {"step_seconds": 0.05, "step_seconds_beside": 0.0505, "cost": 0.01}
    figures |= {"cost_quartiles": [-0.02, 0.03], "cpu": 0.003}
    session.measure({"part": "training"}, 1, lambda: figures)
    tokens, training = serving.tables(lines(recorded))
    assert tokens == [
        "124M (M; commit c0ffee1, 2026-01-01)",
        "",
        "| tokens/s | 1 stream | 64 streams |",
        "| --- | --- | --- |",
        "| Tokenloom f32 | 20 | 100 |",
        "| llama.cpp f32 | 30 | 90 |",
    ]
    assert training[-1] == "| 50.0 ms | 50.5 ms | +1.0% | -2.0% to +3.0% | 0.3% |"
    monkeypatch.setattr(records, "DATA", recorded.parent)
    monkeypatch.setattr(records, "RESULTS", recorded.parent / "results.jsonl")
    assert tokens[-1] in results.render().splitlines()


def test_without_figures_there_is_no_part_in_the_results(recorded, monkeypatch):
    monkeypatch.setattr(records, "DATA", recorded.parent)
    monkeypatch.setattr(records, "RESULTS", recorded.parent / "results.jsonl")
    assert "## Serving" not in results.render().splitlines()


@pytest.mark.slow
def test_a_server_is_measured(recorded, capsys):
    arguments = "--parts tokens --shapes tiny --streams 1 4 --windows 2 --seconds 0.5 --minutes 2"
    assert serving.main([*shlex.split(arguments), "--results", str(recorded)]) == 0
    assert [(run["server"], run["streams"]) for run in lines(recorded)][:2] == [
        ("Tokenloom f32", 1),
        ("Tokenloom f32", 4),
    ]
    assert all(run["tokens_per_sec"] > 0 for run in lines(recorded))


@pytest.mark.slow
def test_training_beside_an_idle_server_is_measured(recorded, monkeypatch):
    tiny = {"model.n-layer": 1, "model.n-head": 2, "model.n-embd": 16, "model.block-size": 16, "train.batch-size": 2}
    monkeypatch.setattr(serving, "TRAINING_FLAGS", serving.TRAINING_FLAGS | tiny)
    arguments = "--parts training --rounds 1 --turn 2 --minutes 3"
    assert serving.main([*shlex.split(arguments), "--results", str(recorded)]) == 0
    [run] = lines(recorded)
    assert run["step_seconds"] > 0
    assert run["steps"] >= 2
