"""Budgets are measured in pairs, idle and busy, and each finished run is recorded."""

import json

import budgets
import psutil

RUN = {"seconds": 61.0, "steps": 10, "val_bits_per_byte": 2.0, "cpu": "x"}


def measure(tmp_path, *arguments):
    return budgets.main([*arguments, "--results", str(tmp_path / "budgets.jsonl")])


def lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "budgets.jsonl").read_text().splitlines()]


def test_each_budget_is_run_twice_with_one_cache_and_never_repeated(tmp_path, monkeypatch, capsys):
    caches = []
    monkeypatch.setattr(budgets, "timed_run", lambda source, budget, cache: caches.append(cache) or RUN)
    for _ in range(2):
        assert measure(tmp_path, "--budgets", "60", "120", "--loads", "idle") == 0
    assert [(run["budget"], run["cache"]) for run in lines(tmp_path)] == [
        (60, "empty"),
        (60, "filled"),
        (120, "empty"),
        (120, "filled"),
    ]
    assert caches[0] == caches[1] != caches[2] == caches[3]
    output = capsys.readouterr().out
    assert "| python-docs | 60 s | idle | empty | 61.0 | +1.7% | 10 |" in output
    assert "| python-docs | 120 s | idle | empty | 61.0 | -49.2% (missed) | 10 |" in output


def test_a_refused_run_is_a_failure_and_not_recorded(tmp_path, monkeypatch, capsys):
    def refused(source, budget, cache):
        raise RuntimeError("too few seconds are left")

    monkeypatch.setattr(budgets, "timed_run", refused)
    assert measure(tmp_path, "--budgets", "31", "--loads", "idle") == 1
    assert not (tmp_path / "budgets.jsonl").exists()
    assert "too few seconds are left" in capsys.readouterr().err


def test_no_pair_is_started_that_would_end_too_late(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "timed_run", None)
    assert measure(tmp_path, "--minutes", "1") == 0


def test_busy_cores_are_busy_only_inside_of_the_block():
    with budgets.busy_cores():
        loops = [child for child in psutil.Process().children() if budgets.BUSY_LOOP in child.cmdline()]
        assert len(loops) == len(psutil.Process().cpu_affinity())
    assert not any(loop.is_running() for loop in loops)
