"""Text files and folders as users have them, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenloom.cli.main import main
from tokenloom.data.shards import open_shards

TINY = ["--preset", "gpt2-124m", "--tokenizer", "byte", "--train.max-steps", "1", "--train.batch-size", "4",
        "--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16", "--model.block-size", "8"]  # fmt: skip


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "book.txt").write_text("all work and no play makes Jack a dull boy\n" * 30)
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def test_training_on_the_current_folder_does_not_read_what_earlier_commands_wrote(capsys) -> None:
    run("train", ".", "--out", "runs/one", *TINY)
    assert "skipped" not in capsys.readouterr().err
    run("export", "runs/one", "--out", "exported")
    run("prepare", "book.txt", "--out", "shards", "--tokenizer", "byte")
    capsys.readouterr()
    run("train", ".", "--out", "runs/two", *TINY)
    assert "skipped 3 folders: exported (a model), runs/one (a run), shards (token shards)" in capsys.readouterr().err
    run("prepare", ".", "--out", "again", "--tokenizer", "byte")
    assert "skipped 4 folders" in capsys.readouterr().err
    assert [source.name for source in open_shards(Path("again")).meta.sources] == ["book.txt"]
    run("evaluate", "runs/one", ".", "--json")
    captured = capsys.readouterr()
    assert "skipped 5 folders" in captured.err
    assert json.loads(captured.out)["tokens"] == len(Path("book.txt").read_bytes()) - 1


def test_a_million_spaces_before_a_word_can_be_prepared() -> None:
    Path("long.txt").write_text("Start" + " " * 1_020_000 + "word " * 50)
    run("prepare", "long.txt", "--out", "shards", "--tokenizer", "gpt2", "--data.val-fraction", "0")
    shards = open_shards(Path("shards"))
    assert shards.train.n_tokens == 1 + 1_019_999 + 50 + 1  # "Start", spaces, words, and the last space
