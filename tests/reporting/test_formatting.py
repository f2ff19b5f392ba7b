"""Formatting: control characters, counts, times and sparklines."""

import pytest

from tokenloom.reporting.formatting import (
    clock_time,
    compact,
    counted,
    duration,
    percent,
    quoted,
    sparkline,
    visible,
    visible_line,
)


def test_a_sparkline_goes_from_the_least_to_the_greatest():
    assert sparkline([3, 2, 1], 10) == "█▅▁"
    assert sparkline([1.0] * 5 + [float("nan")], 10) == "▁▁▁▁▁"
    assert sparkline(range(100), 4) == "▁▃▆█"
    assert sparkline([], 10) == ""


def test_control_characters_are_made_visible():
    assert visible("a\tb\n\x00\x1b\x7f\x9b\ud800é") == "a\tb\n␀␛␡\ufffd\ufffdé"
    assert visible("\u202egnp.exe\u2066") == "\ufffdgnp.exe\ufffd"
    assert visible_line("a\tb\n\x1b") == "a␉b␊␛"


def test_a_quoted_text_cannot_control_a_terminal():
    assert quoted("a\n\x1b\x7f\x9b\u202e語", 40) == '"a\\n\\u001b␡\ufffd\ufffd語"'


def test_times_have_conventional_forms():
    assert [clock_time(t) for t in (7, 754, 3723)] == ["0:07", "12:34", "1:02:03"]
    assert [duration(t) for t in (7.31, 120, 114.2, 7500, 59.97)] == [
        "7.3 s",
        "2 min",
        "1 min 54 s",
        "2 h 5 min",
        "1 min",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7.6812, "7.68"), (950, "950"), (999.9, "1k"), (20_310, "20.3k"), (162_419_712, "162M"), (2e12, "2T")],
)
def test_counts_are_short(number, text):
    assert compact(number) == text


@pytest.mark.parametrize(("share", "text"), [(1.0, "100%"), (0.9999, "99%"), (0.123, "12%"), (0.00043, "0.043%")])
def test_shares_are_written_in_two_digits(share, text):
    assert percent(share) == text


def test_nouns_agree_with_their_count():
    assert [counted(n, "layer") for n in (1, 12, 1024)] == ["1 layer", "12 layers", "1,024 layers"]
    assert counted(8, "batch", "batches") == "8 batches"
