"""The chapter's figures come out; the whole of them, with the 90 training steps, is slow."""

import json
import platform

import pytest

from tokenloom.book import replay
from tokenloom.book.replay import longest_overlap, replay_chapter5
from tokenloom.cli.main import main

KNOWN = (platform.system(), platform.machine()) == ("Linux", "x86_64")


def off(rows):
    return [row for row in rows if row["ok"] is False]


def test_every_figure_but_the_trained_ones_comes_out(texts_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["chapter5", "--quick", "--json", "--out", "plots"])
    result = json.loads(capsys.readouterr().out)
    assert off(result["rows"]) == []
    assert left.value.code == 0
    assert {row["row"] for row in result["rows"]} >= {str(number) for number in range(1, 22)} | {"5.3", "5.4"}
    assert set(result["rows"][0]) == {"row", "what", "expected", "got", "class", "ok"}
    assert result["passed"] > 35
    assert result["rule"] == ("exact" if KNOWN else "bands")
    assert (tmp_path / "plots" / "temperature-plot.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_chapter_comes_out(texts_folder, tmp_path):
    result = replay_chapter5(out=tmp_path)
    assert off(result["rows"]) == []
    assert sum(row["what"].startswith("train and val loss") for row in result["rows"]) == 18
    assert (tmp_path / "loss-plot.pdf").exists()


def test_a_figure_that_is_off_is_shown_and_fails(texts_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(replay, "UNTRAINED", "Every effort moves mountains")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["chapter5", "--quick"])
    shown = capsys.readouterr().out
    assert left.value.code == 1
    assert "NO" in shown
    assert "1 did not" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_longest_overlap_is_counted_in_words():
    text = "The cat sat\non the mat. The dog sat on the floor."
    assert longest_overlap("a dog  sat on the mat. The end", text) == "sat on the mat. The"
    assert longest_overlap("at og", text) == ""
    assert longest_overlap("", text) == ""
