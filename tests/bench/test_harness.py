"""Implementations run interleaved, each in its own process, and their measurements are summarized."""

import json
import sys
from functools import partial

import pytest

from tokenloom.bench import machine
from tokenloom.bench.harness import Implementation, Measurement, Result, format_table, run_interleaved
from tokenloom.cli.main import main


def python(name, code, **options):
    return Implementation(name, command=(sys.executable, "-c", code), **options)


def test_repeats_are_interleaved_and_measured_from_outside(tmp_path):
    log = tmp_path / "log"
    code = f"open({str(log)!r}, 'a').write({{!r}}); import time; x = bytearray({{}}); time.sleep(0.1)"
    implementations = [python("a", code.format("a", 0)), python("b", code.format("b", 60_000_000))]
    lines = []
    small, large = run_interleaved("startup", implementations, {}, 2, lines.append)
    assert log.read_text() == "abab"
    assert lines == [f"repeat {number} of 2: {name}" for number in (1, 2) for name in "ab"]
    assert all(0.1 <= seconds < 60 for seconds in small.values("wall_seconds"))
    assert large.median("peak_mb") > small.median("peak_mb") + 40


def test_one_that_fails_or_is_missing_is_reported_and_the_others_continue():
    implementations = [
        python("broken", "raise SystemExit('no such file')"),
        python("absent", "pass", requires=("no_such_package",)),
        python("working", "pass"),
    ]
    broken, absent, working = run_interleaved("startup", implementations, {}, 2, lambda _: None)
    assert broken.problem == "failed with 1: no such file"
    assert absent.problem == "not installed: no_such_package"
    assert len(working.repeats) == 2
    lines = format_table([broken, absent, working], "wall_seconds", lower_is_better=True)
    assert "no_such_package" in lines[2]
    assert " 1.00 " in lines[3]


def test_medians_spread_and_ratios():
    one = Result("one", [Measurement(1.0, 10, {"rate": rate}) for rate in (9.0, 10.0, 30.0)])
    two = Result("two", [Measurement(1.0, 20, {"rate": rate}) for rate in (20.0, 19.0, 21.0)])
    lines = format_table([one, two], "rate")
    assert lines[1].split() == ["one", "10", "9", "-", "30", "1.00", "10"]
    assert lines[2].split() == ["two", "20", "19", "-", "21", "2.00", "20"]
    assert format_table([one, two], "rate", lower_is_better=True)[2].split()[-2] == "0.50"


def test_the_command_prints_every_repeat_as_json(monkeypatch, capsys):
    monkeypatch.setattr(machine, "SHAPES", machine.SHAPES[:2])
    monkeypatch.setattr(machine, "min_seconds", partial(machine.min_seconds, duration=0.05))
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", "startup", "--repeats", "1", "--only", "python alone", "--json"])
    assert exit_info.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["implementations"]) == ["python alone"]
    assert result["implementations"]["python alone"]["repeats"][0]["wall_seconds"] > 0
    assert result["machine"]["fp32_gflops"] > 1


def test_an_unknown_implementation_is_answered_with_the_available_ones(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["bench", "train", "--only", "nobody"])
    assert exit_info.value.code == 2
    assert "tokenloom bf16" in capsys.readouterr().err
