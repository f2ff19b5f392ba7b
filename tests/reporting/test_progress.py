"""Progress: bars on a terminal, a plain line every few seconds elsewhere, nothing for quick work."""

from screens import Clock, plain, shown_on, terminal

from tokenloom.reporting.progress import BYTES, WINDOWS, ProgressDisplay, window_progress


def test_bytes_off_a_terminal_are_a_line_every_few_seconds():
    console, clock = plain(), Clock()
    with ProgressDisplay(BYTES, console, clock=clock) as progress:
        for tenth in range(200):
            clock.now = tenth / 10
            progress("book.txt [1]", tenth * 1_000_000, 200_000_000)
    lines = shown_on(console).splitlines()
    assert lines[0] == "book.txt [1]: 50.0 of 200.0 MB, 10.0 MB/s, 0:15 left"
    assert len(lines) == 3


def test_bytes_on_a_terminal_are_bars():
    console = terminal()
    with ProgressDisplay(BYTES, console) as progress:
        progress("book.txt [1]", 1_000_000, 2_000_000)
        progress("stdin", 1_000_000, None)
    output = shown_on(console)
    assert "book.txt [1]" in output
    assert "1.0/2.0 MB" in output


def evaluate_for(seconds, console):
    clock = Clock()
    with ProgressDisplay(WINDOWS, console, clock=clock) as progress:
        for tenth in range(1, seconds * 10 + 1):
            clock.now = tenth / 10
            progress("evaluating [1]", tenth * 2, seconds * 20)
    return shown_on(console)


def test_windows_off_a_terminal_are_a_line_every_few_seconds():
    assert evaluate_for(14, plain()).splitlines() == [
        "evaluating [1]: 100 of 280 windows, 20 windows/s, 0:09 left",
        "evaluating [1]: 200 of 280 windows, 20 windows/s, 0:04 left",
    ]


def test_windows_on_a_terminal_are_a_bar_that_disappears():
    output = evaluate_for(4, terminal())
    assert "evaluating [1]" in output
    assert "20 windows/s, 0:03 left" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is restored
    assert output.endswith("\x1b[2K")


def test_windows_for_less_than_a_second_show_nothing():
    assert evaluate_for(1, terminal()) == ""
    assert evaluate_for(1, plain()) == ""


def test_quiet_progress_prints_nothing(capsys):
    with window_progress("evaluating", quiet=True) as progress:
        progress(1, 2)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_progress_is_printed_on_stderr_only(capsys, monkeypatch):
    monkeypatch.setattr("tokenloom.reporting.progress.LINE_INTERVAL", 0.0)
    with window_progress("evaluating") as progress:
        progress(1, 3)
        progress(2, 3)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evaluating: 1 of 3 windows\nevaluating: 2 of 3 windows, ")
