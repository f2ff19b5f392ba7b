"""benchmarks/RESULTS.md is what the files in benchmarks/data give, and only missing parts are measured."""

from pathlib import Path

import pytest
import records
import result_tables
import results

from tokenloom.cli.bench import bench


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """An empty folder of data, on a machine named M."""
    monkeypatch.setattr(records, "DATA", tmp_path)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(records, "machine", lambda: "M")
    monkeypatch.setattr(records, "commit", lambda: "c0ffee1")


def test_the_document_is_what_the_files_give():
    written = results.DOCUMENT.read_text(encoding="utf-8")
    assert written == results.render(), "run: python benchmarks/results.py --write-only"


@pytest.mark.usefixtures("recorded")
def test_a_record_becomes_a_row_with_its_machine_and_commit():
    result = {"case": "3x192", "tokens_per_sec_before": 8000, "tokens_per_sec": 12000}
    records.append("step", result | {"ratio": 1.5, "lowest": 1.4, "highest": 1.6})
    lines = results.render().splitlines()
    assert "| 3x192 | 8,000 | 12,000 | 1.50 (1.40 to 1.60) |" in lines
    assert any(line.startswith("`benchmarks/compare_commits.py step` (M; commit c0ffee1, ") for line in lines)


@pytest.mark.usefixtures("recorded")
def test_the_section_of_budgets_has_a_table_of_each_machine_if_runs_are_recorded(tmp_path):
    title = "## How closely a run ends at its time budget"
    assert title not in results.render()
    case = {"source": "book.txt", "budget": 60, "cache": "empty", "steps": 10, "val_bits_per_byte": 2.0}
    origin = {"commit": "c0ffee1", "date": "2026-11-29"}
    for machine, load, seconds in (("M", "busy", 68.0), ("M", "idle", 50.0), ("M", "idle", 64.0), ("N", "idle", 58.0)):
        run = {**case, **origin, "machine": machine, "load": load, "seconds": seconds}
        records.write(tmp_path / "budgets.jsonl", run)
    section = results.render().split(title)[1].split("##")[0]
    rows = [line for line in section.splitlines() if line.startswith(("| book", "("))]
    assert rows == [
        "(M; commit c0ffee1, 2026-11-29)",
        "| book.txt | 60 s | idle | empty | 64.0 s | +6.7% (missed) | 10 | 2.000 |",
        "| book.txt | 60 s | busy | empty | 68.0 s | +13.3% | 10 | 2.000 |",
        "(N; commit c0ffee1, 2026-11-29)",
        "| book.txt | 60 s | idle | empty | 58.0 s | -3.3% | 10 | 2.000 |",
    ]


def test_ratios_are_to_the_first_implementation_that_ran_and_medians_of_all_rounds():
    first, second = (
        {
            name: {"repeats": [{"seconds": s, "peak_mb": 50 * s} for s in times], "problem": "not installed: x"}
            for name, times in repeats.items()
        }
        for repeats in ({"slow": (2.0, 8.0), "fast": (1.0,), "absent": ()}, {"slow": (2.0,), "fast": (), "absent": ()})
    )
    rows = result_tables.bench_table(
        [{"implementations": rounds} for rounds in (first, second)], "seconds", "s", digits=1, lower_is_better=True
    )[2:]
    assert rows == [
        "| slow | 2.0 | 2.0 to 8.0 | 1.00 | 100 MB (1.00) |",
        "| fast | 1.0 | 1.0 to 1.0 | 2.00 | 50 MB (0.50) |",
        "| absent | not installed: x |  |  |  |",
    ]


@pytest.mark.usefixtures("recorded")
def test_a_part_is_measured_once_on_each_machine_and_only_if_there_is_time(monkeypatch, capfd):
    output = "import json; print(json.dumps({'argv': 1}))"
    quick = results.Part("quick", 1, f'-c "{output}" --json', lambda found: [str(found)])
    long = results.Part("long", 60, "-c pass --json", lambda found: [])
    monkeypatch.setattr(results, "PARTS", {"quick": quick, "long": long})
    assert results.unfinished_parts() == ["quick", "long"]
    assert list(results.measure(results.unfinished_parts(), results.time.time() + 120)) == ["quick"]
    assert results.unfinished_parts() == ["long"]
    assert [record["result"] for record in records.read(records.RESULTS)] == [{"argv": 1}]
    assert "long: left out" in capfd.readouterr().err
    monkeypatch.setattr(records, "machine", lambda: "another")
    assert results.unfinished_parts() == ["quick", "long"]


@pytest.mark.usefixtures("recorded")
def test_each_round_of_a_benchmark_is_recorded_when_it_ends(monkeypatch, capfd):
    implementation = {"repeats": [{"tokens_per_sec": 7, "peak_mb": 50}], "problem": None}
    output = f"print(json.dumps({{'implementations': {{'fast': {implementation}}}}}))"
    part = results.Part("rounds", 1, f'-c "import json; {output}" --json', results.tokens_per_sec, records=3)
    monkeypatch.setattr(results, "PARTS", {"rounds": part})
    interrupted = results.measure(["rounds"], results.time.time() + 120)
    assert [next(interrupted), next(interrupted)] == ["rounds"] * 2
    assert results.unfinished_parts() == ["rounds"]
    assert list(results.measure(["rounds"], results.time.time() + 120)) == ["rounds"]
    assert results.unfinished_parts() == []
    ((_, rounds),) = results.newest_by_machine(records.read(records.RESULTS), part)
    assert part.table([record["result"] for record in rounds])[2:] == ["| fast | 7 | 7 to 7 | 1.00 | 50 MB (1.00) |"]


@pytest.mark.usefixtures("recorded")
def test_a_command_that_fails_is_not_called_again(monkeypatch, capfd):
    part = results.Part("failing", 1, '-c "import sys; sys.exit(3)" --json', lambda found: [], records=3)
    monkeypatch.setattr(results, "PARTS", {"failing": part})
    assert list(results.measure(["failing"], results.time.time() + 120)) == ["failing"]
    assert "failing: failed with 3" in capfd.readouterr().err
    assert results.unfinished_parts() == ["failing"]


@pytest.mark.usefixtures("recorded")
def test_a_part_of_several_records_is_called_until_it_has_all_of_them(monkeypatch, capfd):
    several = results.Part("several", 1, '-c "import sys; print(sys.argv[1:])"', lambda found: [str(found)], records=2)
    monkeypatch.setattr(results, "PARTS", {"several": several})
    for number in range(2):
        assert results.unfinished_parts() == ["several"]
        assert list(results.measure(["several"], results.time.time() + 120.5)) == ["several"]
        assert capfd.readouterr().out == "['--minutes', '2.0']\n"
        records.append("several", {"number": number})
    assert results.unfinished_parts() == []
    assert list(results.measure(["several"], results.time.time() + 120.5)) == []
    assert "this commit has been measured" in capfd.readouterr().err


@pytest.mark.usefixtures("recorded")
def test_a_part_that_is_not_finished_at_a_new_commit_is_shown_as_it_was_before(monkeypatch):
    part = results.Part("several", 1, "-c pass", lambda found: [str(found)], records=2)

    def shown() -> list[int]:
        ((_, found),) = results.newest_by_machine(records.read(records.RESULTS), part)
        return [record["result"]["number"] for record in found]

    seen = []
    for commit, number in (("a", 1), ("a", 2), ("b", 3), ("b", 4)):
        monkeypatch.setattr(records, "commit", lambda commit=commit: commit)
        records.append("several", {"number": number})
        seen.append(shown())
    assert seen == [[1], [1, 2], [1, 2], [3, 4]]


def test_rounds_of_the_page_become_one_row():
    rounds = [
        {"rows": [{"what": "open", "values": [40.0, 50.0], "unit": "ms", "limit": 2000}]},
        {"rows": [{"what": "open", "values": [60.0], "unit": "ms", "limit": 2000}]},
    ]
    assert result_tables.page_table(rounds)[2:] == ["| open | 50.0 ms | 60.0 ms | 2,000 ms |"]


def test_the_commands_exist():
    """Each is a command of tokenloom with valid options, or a script of this folder."""
    for part in results.PARTS.values():
        words = part.command.split()
        if words[:2] == ["tokenloom", "bench"]:
            bench.parse_args(words[2:], exit_on_error=False)
        elif words[0] != "tokenloom":
            assert Path(records.ROOT, words[0]).exists(), words
