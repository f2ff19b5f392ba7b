"""Budgets are measured idle and busy, with an empty cache and then with a filled one; each finished run is recorded."""

import shutil

import budgets
import psutil
import pytest
import records

RUN = {"seconds": 61.0, "steps": 10, "val_bits_per_byte": 2.0}


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine named M with an empty cache folder."""
    monkeypatch.setattr(records, "machine", lambda: "M")
    monkeypatch.setattr(records, "commit", lambda: "c0ffee1")
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(monkeypatch):
    """A run that fills its cache; returns the list of those that were made, and whether their caches were filled."""
    made = []

    def timed_run(source, budget, cache):
        folder = budgets.Path(cache)
        made.append((budget, folder.exists()))
        folder.mkdir(parents=True, exist_ok=True)
        return RUN

    monkeypatch.setattr(budgets, "timed_run", timed_run)
    return made


def measure(tmp_path, *arguments):
    return budgets.main([*arguments, "--loads", "idle", "--results", str(tmp_path / "budgets.jsonl")])


def recorded(tmp_path):
    return [(run["budget"], run["cache"]) for run in records.read(tmp_path / "budgets.jsonl")]


def test_budgets_are_run_twice_with_one_cache_the_longest_once_and_none_is_repeated(tmp_path, run, capsys):
    for _ in range(2):
        assert measure(tmp_path) == 0
    assert run == [(60, False), (120, False), (300, False), (31, False), (31, True), (60, True), (120, True)]
    empty, filled = ([(budget, state) for budget in (60, 120)] for state in ("empty", "filled"))
    assert recorded(tmp_path) == [*empty, (300, "empty"), (31, "empty"), (31, "filled"), *filled]
    assert not list((tmp_path / "cache" / "budgets" / "c0ffee1").iterdir())
    output = capsys.readouterr().out
    assert "| python-docs | 60 s | idle | empty | 61.0 s | +1.7% | 10 | 2.000 |" in output
    assert "| python-docs | 120 s | idle | empty | 61.0 s | -49.2% (missed) | 10 | 2.000 |" in output


def test_the_most_important_cases_come_first_and_all_take_24_minutes():
    assert [load for _, load, _ in budgets.CASES[:6]] == ["idle"] * 3 + ["busy"] * 3
    assert len(set(budgets.CASES)) == len(budgets.CASES)
    assert sum(budget for budget, _, _ in budgets.CASES) == pytest.approx(24 * 60, rel=0.01)


@pytest.mark.parametrize(("is_kept", "made"), [(True, [False, True]), (False, [False, False, True])])
def test_an_interrupted_pair_goes_on_with_the_cache_of_its_first_run(tmp_path, run, monkeypatch, is_kept, made):
    timed_run = budgets.timed_run

    def interrupted(*arguments):
        if run:
            raise KeyboardInterrupt
        return timed_run(*arguments)

    monkeypatch.setattr(budgets, "timed_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, "--budgets", "60")
    assert recorded(tmp_path) == [(60, "empty")]
    monkeypatch.setattr(budgets, "timed_run", timed_run)
    if not is_kept:
        shutil.rmtree(tmp_path / "cache")
    measure(tmp_path, "--budgets", "60")
    assert [is_filled for _, is_filled in run] == made
    assert recorded(tmp_path)[-1] == (60, "filled")


def test_other_commits_are_measured_again_only_with_refresh(tmp_path, run, monkeypatch):
    measure(tmp_path, "--budgets", "60")
    monkeypatch.setattr(records, "commit", lambda: "decade2")
    measure(tmp_path, "--budgets", "60")
    assert len(run) == 2
    measure(tmp_path, "--budgets", "60", "--refresh")
    assert len(run) == 4


def test_a_refused_run_is_a_failure_and_not_recorded(tmp_path, monkeypatch, capsys):
    def refused(source, budget, cache):
        raise RuntimeError("too few seconds are left")

    monkeypatch.setattr(budgets, "timed_run", refused)
    assert measure(tmp_path, "--budgets", "31") == 1
    assert not (tmp_path / "budgets.jsonl").exists()
    assert "too few seconds are left" in capsys.readouterr().err


def test_no_run_is_started_that_would_end_too_late(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "timed_run", None)
    assert measure(tmp_path, "--minutes", "0.5") == 0


def test_busy_cores_are_busy_only_inside_of_the_block():
    with budgets.busy_cores():
        loops = [child for child in psutil.Process().children() if budgets.BUSY_LOOP in child.cmdline()]
        assert len(loops) == len(psutil.Process().cpu_affinity())
    assert not any(loop.is_running() for loop in loops)
