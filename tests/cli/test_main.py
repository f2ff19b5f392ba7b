"""The command itself: errors and exit codes."""

import errno
import os
import threading

import pytest
import torch

from tokenloom.cli.main import _is_computing, main
from tokenloom.compute import parallel
from tokenloom.errors import CheckpointError, DivergedError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "tokenloom: interrupted"),
        (MemoryError(), 1, "tokenloom: out of memory."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "tokenloom: out of memory."),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "tokenloom: out of memory."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "tokenloom: out of memory."),
        (PermissionError(13, "Permission denied", "there"), 1, "tokenloom: Permission denied: there."),
        (AssertionError(), 1, "tokenloom: unexpected error: AssertionError."),
        (RuntimeError("two\nlines"), 1, "tokenloom: unexpected error: RuntimeError: two lines. This is a bug"),
        (RecursionError("too deep"), 1, "tokenloom: unexpected error: RecursionError: too deep. This is a bug"),
    ],
    ids=["interrupt", "memory", "torch", "cuda", "system", "permission", "assertion", "runtime", "recursion"],
)
def test_errors_become_one_line_and_an_exit_code(capsys, monkeypatch, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tokenloom.cli.info.preset_names", fail)
    with pytest.raises(SystemExit) as exit_info:
        main(["info"])
    assert exit_info.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(message)


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (
            DivergedError("step 3: the loss is not finite.", 1.0, 1.0),
            "See docs/how-to/loss-curves.md#the-loss-is-not-finite.",
        ),
        (CheckpointError("cannot be resumed.", topic="resuming"), "See docs/how-to/resume.md#what-may-change."),
        (CheckpointError("runs/x does not exist."), "does not exist."),
    ],
)
def test_an_error_names_its_page_of_the_documentation_if_it_has_one(capsys, monkeypatch, error, end):
    def fail():
        raise error

    monkeypatch.setattr("tokenloom.cli.info.preset_names", fail)
    with pytest.raises(SystemExit):
        main(["info"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tokenloom: {error}")
    assert line.endswith(end)


def test_an_unexpected_error_says_where_to_report_it_and_the_traceback_is_shown_on_request(capsys, monkeypatch):
    def fail():
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("tokenloom.cli.info.preset_names", fail)
    with pytest.raises(SystemExit):
        main(["info"])
    without = capsys.readouterr().err
    assert "issue tracker" in without
    assert "TOKENLOOM_DEBUG=1" in without
    monkeypatch.setenv("TOKENLOOM_DEBUG", "1")
    with pytest.raises(SystemExit):
        main(["info"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == without.strip()


def test_a_thread_that_is_being_started_is_no_error_at_the_exit():
    assert not _is_computing({threading.Thread(name="tokenloom-load")})


def test_a_process_that_was_in_a_group_ends_without_an_orderly_exit_which_can_abort(capsys, monkeypatch):
    def end(code):
        ended.append(code)
        raise SystemExit(code)

    ended = []
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit):
        main(["info"])
    assert ended == []
    monkeypatch.setattr(parallel, "_has_joined", True)
    with pytest.raises(SystemExit):
        main(["info"])
    assert ended == [0]
