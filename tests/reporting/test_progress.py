"""Progress: a bar where it can be drawn, a plain line now and then elsewhere, nothing where it is quick."""

from screens import Clock, plain, shown_on, terminal

from tokenloom.reporting.progress import PreparationProgress, WindowProgress, progress_counter


def test_preparing_data_off_a_terminal_says_a_line_every_few_seconds():
    console, clock = plain(), Clock()
    with PreparationProgress(console, clock=clock) as progress:
        for tenth in range(200):
            clock.now = tenth / 10
            progress("book.txt [1]", tenth * 1_000_000, 200_000_000)
    lines = shown_on(console).splitlines()
    assert lines[0] == "book.txt [1]: 50.0 of 200.0 MB, 10.0 MB/s, 0:15 left"
    assert len(lines) == 3


def test_preparing_data_on_a_terminal_draws_bars():
    console = terminal()
    with PreparationProgress(console) as progress:
        progress("book.txt [1]", 1_000_000, 2_000_000)
        progress("stdin", 1_000_000, None)
    output = shown_on(console)
    assert "book.txt [1]" in output
    assert "1.0/2.0 MB" in output


def measure_for(seconds, console):
    clock = Clock()
    with WindowProgress("evaluating [1]", console, clock=clock) as progress:
        for tenth in range(1, seconds * 10 + 1):
            clock.now = tenth / 10
            progress(tenth * 2, seconds * 20)
    return shown_on(console)


def test_measuring_off_a_terminal_says_a_line_every_few_seconds():
    assert measure_for(14, plain()).splitlines() == [
        "evaluating [1]: 100 of 280 windows, 20 windows/s, 0:09 left",
        "evaluating [1]: 200 of 280 windows, 20 windows/s, 0:04 left",
    ]


def test_measuring_on_a_terminal_draws_a_bar_and_takes_it_away():
    output = measure_for(4, terminal())
    assert "evaluating [1]" in output
    assert "20 windows/s, 0:03 left" in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h") == 1  # the cursor is given back
    assert output.endswith("\x1b[2K")


def test_measuring_for_less_than_a_second_shows_nothing():
    assert measure_for(1, terminal()) == ""
    assert measure_for(1, plain()) == ""


def test_a_quiet_counter_takes_everything_and_says_nothing(capsys):
    with progress_counter("evaluating", quiet=True) as progress:
        progress(1, 2)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_counter_writes_on_stderr_only(capsys, monkeypatch):
    monkeypatch.setattr("tokenloom.reporting.progress.SECONDS_BETWEEN_PLAIN_LINES", 0.0)
    with progress_counter("evaluating", quiet=False) as progress:
        progress(1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evaluating: 1 of 2 windows, ")
