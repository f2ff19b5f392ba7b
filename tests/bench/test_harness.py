"""Contenders take turns, each in a process of its own, and what they say is summed up fairly."""

import json
import sys

import pytest

from tokenloom.bench.harness import Contender, Outcome, run_in_turn, table
from tokenloom.cli.main import main


def python(name, code, **more):
    return Contender(name, command=(sys.executable, "-c", code), **more)


def test_they_take_turns_and_are_measured_from_outside(tmp_path):
    log = tmp_path / "log"
    note = f"open({str(log)!r}, 'a').write({{!r}}); import time; x = bytearray({{}}); time.sleep(0.1)"
    contenders = [python("a", note.format("a", 0)), python("b", note.format("b", 60_000_000))]
    said = []
    small, large = run_in_turn("startup", contenders, {}, 2, said.append)
    assert log.read_text() == "abab"
    assert said == [f"round {number} of 2: {name}" for number in (1, 2) for name in "ab"]
    assert all(0.1 <= seconds < 60 for seconds in small.values("wall_seconds"))
    assert large.median("peak_mb") > small.median("peak_mb") + 40  # type: ignore[operator]


def test_one_that_fails_or_is_missing_is_told_and_the_others_go_on():
    contenders = [
        python("broken", "raise SystemExit('no such file')"),
        python("absent", "pass", needs=("no_such_package",)),
        python("well", "pass"),
    ]
    broken, absent, well = run_in_turn("startup", contenders, {}, 2, lambda _: None)
    assert broken.problem == "failed with 1: no such file"
    assert absent.problem == "not installed: no_such_package"
    assert len(well.rounds) == 2
    lines = table([broken, absent, well], "wall_seconds", less_is_better=True)
    assert "no_such_package" in lines[2]
    assert " 1.00 " in lines[3]


def test_medians_spread_and_ratios():
    one = Outcome("one", [{"rate": rate, "peak_mb": 10} for rate in (9.0, 10.0, 30.0)])
    two = Outcome("two", [{"rate": rate, "peak_mb": 20} for rate in (20.0, 19.0, 21.0)])
    lines = table([one, two], "rate")
    assert lines[1].split() == ["one", "10", "9", "-", "30", "1.00", "10"]
    assert lines[2].split() == ["two", "20", "19", "-", "21", "2.00", "20"]
    assert table([one, two], "rate", less_is_better=True)[2].split()[-2] == "0.50"


def test_the_command_gives_every_round_as_json(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "startup", "--rounds", "1", "--only", "python alone", "--json"])
    assert left.value.code == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["contenders"]) == ["python alone"]
    assert result["contenders"]["python alone"]["rounds"][0]["wall_seconds"] > 0
    assert result["machine"]["fp32_gflops"] > 1


def test_an_unknown_contender_is_told_the_known_ones(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "train", "--only", "nobody"])
    assert left.value.code == 2
    assert "tokenloom bf16" in capsys.readouterr().err
