"""The command itself: errors and exit codes."""

import pytest
import torch

from tokenloom.cli.main import main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "tokenloom: interrupted"),
        (MemoryError(), 1, "tokenloom: out of memory."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "tokenloom: out of memory."),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "tokenloom: out of memory."),
        (PermissionError(13, "Permission denied", "there"), 1, "tokenloom: Permission denied: there."),
        (AssertionError(), 1, "tokenloom: unexpected error: AssertionError."),
        (RuntimeError("two\nlines"), 1, "tokenloom: unexpected error: RuntimeError: two lines. This is a bug"),
        (RecursionError("too deep"), 1, "tokenloom: unexpected error: RecursionError: too deep. This is a bug"),
    ],
    ids=["interrupt", "memory", "torch", "cuda", "permission", "assertion", "runtime", "recursion"],
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
