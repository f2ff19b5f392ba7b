"""Commands whose standard streams are closed, full, or lack characters: real processes."""

import io
import json
import sys

import pytest
from commands import run_command, train_small_run

from tokenloom.cli.main import main
from tokenloom.run_folder import RunFolder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")
TEXT = "pl—≥語\x1b[31m"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    train_small_run(folder)
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "run", "--text", TEXT],
        ["compare", "run", "run", "--text", TEXT],
        ["generate", "run", "--num-samples", "2", "--prompt", TEXT, "--max-new-tokens", "4"],
        ["generate", "run", "--prompt", TEXT, "--max-new-tokens", "4", "--json"],
        ["prepare", "text.txt", "--tokenizer", "char", "--out", "語"],
    ],
    ids=lambda command: command[0],
)
def test_a_result_fits_the_encoding_of_stdout(folder, monkeypatch, capsys, command, encoding):
    monkeypatch.chdir(folder)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    with pytest.raises(SystemExit) as exit_info:
        main(command)
    assert (exit_info.value.code, capsys.readouterr().err) == (0, "")
    result = written.getvalue().decode(encoding)
    if "--json" in command:
        assert json.loads(result)["prompt"] == TEXT


def test_the_environment_sets_the_encoding_of_a_process(folder):
    command = ["generate", "run", "--num-samples", "2", "--prompt", TEXT, "--max-new-tokens", "1"]
    done = run_command(*command, cwd=folder, environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"pl\u2014>=\u8a9e" in done.stdout


@pytest.mark.parametrize("redirect", ["<&- >&- 2>&-", "2>&1 | head -n 1"])
def test_a_run_completes_whatever_happens_to_its_streams(folder, tmp_path, redirect):
    flags = ["--tokenizer", "char", "--train.max-steps", "2", "--model.n-layer", "1", "--model.n-embd", "16"]
    flags += [
        "--model.n-head",
        "2",
        "--model.block-size",
        "16",
        "--train.batch-size",
        "2",
        "--out",
        str(tmp_path / "r"),
    ]
    done = run_command("train", "text.txt", *flags, redirect=redirect, cwd=folder)
    assert done.returncode == 0
    assert RunFolder(tmp_path / "r").summary().steps == 2


@pytest.mark.parametrize(
    ("command", "redirect", "code", "message"),
    [
        (["info"], ">&-", 0, ""),
        (["info"], "2>&-", 0, ""),
        (["info", "missing"], "2>&-", 1, ""),
        (["info"], ">/dev/full", 1, "tokenloom: cannot write to standard output: No space left on device."),
        (["info"], ">/dev/full 2>&-", 1, ""),
        (["--help"], ">/dev/full", 1, "tokenloom: cannot write to standard output: No space left on device."),
        (["prepare", "-", "--out", "new"], "<&-", 1, "tokenloom: there is no standard input"),
        (["evaluate", "run", "-"], "<&-", 1, "tokenloom: there is no standard input"),
    ],
    ids=str,
)
def test_a_stream_that_is_closed_or_full_gives_one_line_at_most(folder, command, redirect, code, message):
    done = run_command(*command, redirect=redirect, cwd=folder)
    errors = done.stderr.decode()
    assert done.returncode == code, errors
    assert errors.startswith(message)
    assert errors.count("\n") == bool(message)


def test_a_reader_that_has_read_enough_is_no_error(folder):
    done = run_command("inspect", "run", "text.txt", redirect="| head -n 1", cwd=folder)
    assert done.stdout.startswith(b"token")
    assert done.stderr == b""
