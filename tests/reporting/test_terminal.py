"""The terminal: which consoles can be drawn on, and which characters they can encode."""

import pytest
from screens import plain, terminal

from tokenloom.reporting.terminal import can_draw, encodable, stderr_console


def test_only_a_terminal_that_can_move_its_cursor_is_drawn_on(monkeypatch):
    assert can_draw(terminal())
    assert not can_draw(plain())
    monkeypatch.setenv("TERM", "dumb")
    assert not can_draw(terminal())


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_log_is_not_a_terminal_whatever_the_environment(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert not can_draw(stderr_console())


def test_characters_that_cannot_be_encoded_become_escapes_and_our_symbols_ascii():
    assert encodable("aé語…", "latin-1") == "aé\\u8a9e..."
    assert encodable("aé語…", "utf-8") == "aé語…"
    assert encodable("␛[0m ≥ \ufffd", "ascii") == "\\x1b[0m >= ?"
