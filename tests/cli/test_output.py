"""Control characters in names, texts and messages never reach a terminal."""

import io
import json
import sys

import pytest

from tokenloom.cli.output import print_json, print_notice, print_progress, print_result, write_text

HOSTILE = "a\x1b]0;title\x07\x9b2J\u202eb\r\tc\nd"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_results_keep_only_tabs_and_newlines(capsys):
    print_result(HOSTILE)
    assert capsys.readouterr().out == "a␛]0;title␇\ufffd2J\ufffdb␍\tc\nd\n"


@pytest.mark.parametrize("function", [print_notice, print_progress])
def test_a_notice_is_one_line_on_stderr(capsys, function):
    function(HOSTILE)
    printed = capsys.readouterr()
    assert printed.err.removeprefix("tokenloom: ") == "a␛]0;title␇\ufffd2J\ufffdb␍␉c␊d\n"
    assert printed.out == ""


def test_json_is_ascii_and_exact(capsys):
    print_json({HOSTILE: "語"})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.rstrip("\n").isprintable()
    assert json.loads(printed) == {HOSTILE: "語"}


def test_generated_text_is_exact_in_a_pipe_and_visible_on_a_terminal(capsys, monkeypatch):
    write_text(HOSTILE)
    assert capsys.readouterr().out == HOSTILE
    monkeypatch.setattr(sys, "stdout", Terminal())
    write_text(HOSTILE)
    assert sys.stdout.getvalue() == "a␛]0;title␇\ufffd2J\ufffdb␍\tc\nd"
