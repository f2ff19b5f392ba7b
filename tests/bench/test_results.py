"""benchmarks/RESULTS.md is what the files in benchmarks/data give, and only missing parts are measured."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    """The modules results and records, which import each other by name, as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import records
    import results

    yield results, records
    del sys.modules["results"], sys.modules["records"]


@pytest.fixture
def recorded(scripts, monkeypatch, tmp_path):
    """The same with an empty folder of data, on the machine M."""
    results, records = scripts
    monkeypatch.setattr(records, "DATA", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(records, "machine", lambda: "M")
    monkeypatch.setattr(records, "commit", lambda: "c0ffee1")
    return results, records


def test_the_document_is_what_the_files_give(scripts):
    results, _ = scripts
    written = results.DOCUMENT.read_text(encoding="utf-8")
    assert written == results.render(), "run: python benchmarks/results.py --write-only"


def test_a_record_becomes_a_row_with_its_machine_and_commit(recorded):
    results, records = recorded
    result = {"case": "3x192", "tokens_per_sec_before": 8000, "tokens_per_sec": 12000}
    records.append("step", result | {"ratio": 1.5, "lowest": 1.4, "highest": 1.6})
    lines = results.render().splitlines()
    assert "| 3x192 | 8,000 | 12,000 | 1.50 (1.40 to 1.60) |" in lines
    assert any(line.startswith("`benchmarks/compare_commits.py step` (M; commit c0ffee1, ") for line in lines)


def test_ratios_are_to_the_first_implementation_that_ran(scripts):
    results, _ = scripts
    repeats = {"slow": (2.0, 2.0, 8.0), "fast": (1.0,), "absent": ()}
    implementations = {
        name: {"repeats": [{"seconds": s, "peak_mb": 50 * s} for s in times], "problem": "not installed: x"}
        for name, times in repeats.items()
    }
    rows = results.bench_table([{"implementations": implementations}], "seconds", "s", digits=1, lower_is_better=True)[
        2:
    ]
    assert rows == [
        "| slow | 2.0 | 2.0 to 8.0 | 1.00 | 100 MB (1.00) |",
        "| fast | 1.0 | 1.0 to 1.0 | 2.00 | 50 MB (0.50) |",
        "| absent | not installed: x |  |  |  |",
    ]


def test_a_part_is_measured_once_on_each_machine_and_only_if_there_is_time(recorded, monkeypatch, capfd):
    results, records = recorded
    output = "import json; print(json.dumps({'argv': 1}))"
    quick = results.Part("quick", 1, f'-c "{output}" --json', lambda found: [str(found)])
    long = results.Part("long", 60, "-c pass --json", lambda found: [])
    monkeypatch.setattr(results, "PARTS", {"quick": quick, "long": long})
    assert results.unfinished_parts() == ["quick", "long"]
    results.measure(results.unfinished_parts(), results.time.time() + 120)
    assert results.unfinished_parts() == ["long"]
    assert [record["result"] for record in records.read(records.RESULTS)] == [{"argv": 1}]
    assert "long: left out" in capfd.readouterr().err
    monkeypatch.setattr(records, "machine", lambda: "another")
    assert results.unfinished_parts() == ["quick", "long"]


def test_the_commands_exist(scripts):
    """Each is a command of tokenloom with valid options, or a script of this folder."""
    results, _ = scripts
    from tokenloom.cli.bench import bench

    for part in results.PARTS.values():
        words = part.command.split()
        if words[:2] == ["tokenloom", "bench"]:
            bench.parse_args(words[2:], exit_on_error=False)
        elif words[0] != "tokenloom":
            assert (BENCHMARKS.parent / words[0]).exists(), json.dumps(words)
