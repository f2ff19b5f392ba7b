"""The commands that messages suggest work as they are printed, also for names with spaces and other characters."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tokenloom.cli.main import main


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("my texts").mkdir()
    Path("my texts", "book.txt").write_text("all work and no play makes Jack a dull boy\n" * 30)
    Path("my texts", "book.log").write_text("all work")


def printed(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main(arguments)
    return "".join(capfd.readouterr())


def arguments_of(command: str, output: str) -> list[str]:
    """The arguments of a suggested command as a shell reads them, after `command`."""
    found = re.search(rf"{command} (.*)", output)
    assert found is not None, output
    return shlex.split(found.group(1))


def test_the_next_command_of_prepare_names_the_folder(capfd) -> None:
    output = printed(capfd, "prepare", "my texts/book.txt", "--out", "l'été 1", "--tokenizer", "byte")
    assert arguments_of("Next: tokenloom train", output) == ["l'été 1"]


def test_a_run_that_exists_is_resumed_by_the_command_in_the_message(capfd) -> None:
    Path("my run").mkdir()
    Path("my run", "notes.txt").write_text("not empty")
    output = printed(capfd, "train", "my texts/book.txt", "--out", "my run", "--train.max-steps", "1")
    assert arguments_of("tokenloom train --resume", output) == ["my run"]


def test_a_text_with_another_suffix_is_read_from_the_path_in_the_message(capfd) -> None:
    output = printed(capfd, "train", "my texts/book.log", "--train.max-steps", "1")
    assert arguments_of(r"from standard input \(- <", output.replace(").", ""))[0] == "my texts/book.log"
