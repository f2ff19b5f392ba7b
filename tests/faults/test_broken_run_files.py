"""A file of a run with invalid content: one line that names the file."""

import shutil
from pathlib import Path

import pytest

from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.data.corpora import cache_folder
from tokenloom.errors import DataError

CONTENTS = {
    "empty": b"",
    "a list": b"[]",
    "null": b"null",
    "truncated": b'{"dataset": ',
    "not UTF-8": b'{"a": "\xe9"}',
    "a long integer": b'{"seed": ' + b"9" * 5000 + b"}",
    "nested deeply": b"[" * 100_000,
    "wrong types": b'{"dataset": 1, "xz_bits_per_byte": "x"}',
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("broken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
        patch.chdir(workspace)
        Path("text.txt").write_text("all work and no play makes Jack a dull boy\n" * 20)
        settings = {
            "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8},
            "train": {"max_steps": 1, "batch_size": 1},
        }
        api.train("text.txt", out="run", tokenizer="byte", settings=settings, quiet=True)
    return workspace


def last_line(capfd, *argv: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(argv)
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert exit_info.value.code == 1, line
    assert line.startswith("tokenloom: ")
    assert "unexpected error" not in line
    return line


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("name", ["identity.json", "baselines.json"])
def test_resuming_names_the_invalid_file(workspace, tmp_path, monkeypatch, capfd, name, content):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
    shutil.copytree(workspace / "run", "run")
    shutil.copy(workspace / "text.txt", "text.txt")
    Path("run", name).write_bytes(content)
    more = ("train", "--resume", "run", "--train.max-steps", "2")
    assert f"{name} is invalid" in last_line(capfd, *more)
    if name == "identity.json":
        assert f"{name} is invalid" in last_line(capfd, "evaluate", "run")


def test_without_a_home_folder_the_cache_has_to_be_named(monkeypatch):
    monkeypatch.delenv("TOKENLOOM_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/tokenloom"))
    with pytest.raises(DataError, match="Set TOKENLOOM_CACHE"):
        cache_folder()


def test_a_cache_that_cannot_be_written_is_one_line(workspace, tmp_path, monkeypatch, capfd):
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "home" / "cache"))
    line = last_line(capfd, "train", "text.txt", "--tokenizer", "byte", "--out", str(tmp_path / "run"))
    assert "cannot write token shards" in line
    assert "set TOKENLOOM_CACHE to another folder" in line
