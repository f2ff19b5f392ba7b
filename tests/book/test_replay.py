"""The replay reproduces the chapter's results; with the 90 training steps it is slow."""

import json
import platform

import pytest

from tokenloom.book import expected, replay
from tokenloom.book.replay import replay_chapter5
from tokenloom.book.training_section import longest_overlap
from tokenloom.cli.main import main

EXACT = (platform.system(), platform.machine()) == ("Linux", "x86_64")


def test_the_quick_replay_matches_the_book(texts_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main(["chapter5", "--quick", "--json", "--out", "plots"])
    result = json.loads(capsys.readouterr().out)
    assert [row for row in result["rows"] if row["ok"] is False] == []
    assert exit_info.value.code == 0
    assert {row["row"] for row in result["rows"]} >= {str(number) for number in range(1, 22)} | {"5.3", "5.4"}
    assert set(result["rows"][0]) == {"row", "what", "expected", "got", "class", "ok"}
    assert result["passed"] > 35
    assert result["rule"] == ("exact" if EXACT else "bands")
    assert (tmp_path / "plots" / "temperature-plot.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_full_replay_matches_the_book(texts_folder, tmp_path):
    result = replay_chapter5(out=tmp_path)
    assert [row for row in result.rows if row.ok is False] == []
    assert sum(row.description.startswith("train and val loss") for row in result.rows) == 18
    assert (tmp_path / "loss-plot.pdf").exists()


def test_a_result_that_differs_is_shown_and_exits_with_1(texts_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(expected, "UNTRAINED_SAMPLE", "Every effort moves mountains")
    for section in ("evaluate_untrained", "save_and_load"):  # the longest ones, which agree
        monkeypatch.setattr(replay, section, lambda *arguments: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        main(["chapter5", "--quick"])
    shown = capsys.readouterr().out
    assert exit_info.value.code == 1
    assert "NO" in shown
    assert "1 differ" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_longest_overlap_is_counted_in_words():
    text = "The cat sat\non the mat. The dog sat on the floor."
    assert longest_overlap("a dog  sat on the mat. The end", text) == "sat on the mat. The"
    assert longest_overlap("at og", text) == ""
    assert longest_overlap("", text) == ""
