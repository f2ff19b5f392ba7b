"""tokenloom train --serve: the page is there while the model trains, and training does not depend on it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tokenloom.cli import train_page
from tokenloom.cli.main import main
from tokenloom.serving import page_process

FLAGS = (
    "--model.n-layer 1 --model.n-head 2 --model.n-embd 16 --model.block-size 16 --tokenizer byte --train.batch-size 2 "
    "--train.log-interval 1 --train.eval-interval 1000 --sample.max-new-tokens 4 --device cpu --json"
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a text, in which commands run."""
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path


class Terminal:
    """A pseudo-terminal, from which everything is read at once: a full one would stop the program."""

    def __init__(self) -> None:
        self._leader, self.end = pty.openpty()
        self._text, self._has_grown = "", threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, expected: str) -> str:
        """What was written, as soon as it contains a text."""
        with self._has_grown:
            assert self._has_grown.wait_for(lambda: expected in self._text, timeout=100), self._text
            return self._text

    def close(self) -> None:
        """Called when no program has it open any more."""
        self._reader.join()
        os.close(self._leader)

    def _read(self) -> None:
        with suppress(OSError):  # the end was closed
            while read := os.read(self._leader, 4096):
                with self._has_grown:
                    self._text += read.decode(errors="replace")
                    self._has_grown.notify()


@pytest.mark.timeout(200)
@pytest.mark.skipif(os.name == "nt", reason="there is no pseudo-terminal")
def test_the_run_is_watched_while_it_trains_and_at_a_terminal_until_ctrl_c_which_is_no_failure(folder):
    terminal = Terminal()
    words = [sys.executable, "-m", "tokenloom", "train", "text.txt", "--serve", *FLAGS.split()]
    words += ["--train.max-steps", "50"]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=terminal.end) as process:
        os.close(terminal.end)
        try:
            url = address(terminal.wait_for("Watch the run at http"))
            with httpx2.Client(base_url=url, timeout=60) as http:
                while not (states := states_of_runs(http)):
                    assert process.poll() is None
                    time.sleep(0.02)  # requests without a pause would take the time of the training
                assert states == ["training"]
                assert address(terminal.wait_for("until Ctrl-C")) == url
                assert states_of_runs(http) == ["finished"]
                assert json.loads(process.stdout.readline())["steps"] == 50
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=60) == 0
                with pytest.raises(httpx2.TransportError):
                    http.get("/")
        finally:
            process.kill()
    terminal.close()


def states_of_runs(http: httpx2.Client) -> list[str]:
    return [row["state"] for row in http.get("/api/runs").json()["runs"]]


def address(text: str) -> str:
    return re.findall(r"http://127\.0\.0\.1:\d+", text)[-1]


def test_training_goes_on_without_a_page_that_does_not_start(folder, monkeypatch, capsys):
    monkeypatch.setattr(page_process, "_CODE", "raise SystemExit(3)")
    with pytest.raises(SystemExit) as ended:
        main(["train", "text.txt", "--serve", *FLAGS.split(), "--train.max-steps", "2"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert json.loads(printed.out)["steps"] == 2
    assert printed.err.count("training without the page: its process failed") == 1


def test_training_goes_on_if_no_process_can_be_started(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(folder / "text.txt"))
    with train_page.page_beside(folder) as page:
        assert page is None
    assert "its process cannot be started: Permission denied." in capsys.readouterr().err


def test_only_rank_0_serves(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(train_page, "PageProcess", lambda runs: pytest.fail("a page was started"))
    with pytest.raises(SystemExit) as ended:
        main(["train", "nowhere.txt", "--serve", "--train.max-steps", "2"])
    assert ended.value.code == 1
    assert "nowhere.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "resumed", "expected"),
    [(None, (), "runs"), ("a/b", (), "a"), (None, ("a/b/",), "a"), ("run", (), "."), (None, ("..",), "../..")],
)
def test_the_page_shows_the_folder_of_the_run(folder, out, resumed, expected):
    found = train_page.folder_of_runs(out and Path(out), resumed)
    assert found.resolve() == Path(expected).resolve()
