"""Text arguments of commands: a text, a file, or standard input."""

import io
import sys
from types import SimpleNamespace

import pytest

from tokenloom.cli.stdin import STDIN, escape_dashes, source_names, text_of, text_or_stdin
from tokenloom.errors import DataError, UsageError


@pytest.fixture
def stdin(monkeypatch):
    def provide(data: bytes):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    return provide


def test_a_lone_dash_survives_the_argument_parser():
    argv = ["train", "-", "--out", "a-b", "--", "-x"]
    assert source_names(escape_dashes(argv)) == argv
    assert escape_dashes(["-"]) == [STDIN]


def test_a_dash_reads_standard_input(stdin):
    stdin("prompt é".encode())
    assert text_or_stdin(STDIN) == "prompt é"
    assert text_or_stdin("as it is") == "as it is"


def test_standard_input_that_is_not_utf8_is_rejected_with_its_offset(stdin):
    stdin(b"caf\xe9")
    with pytest.raises(UsageError, match="byte 0xe9 at offset 3"):
        text_or_stdin("-")


def test_the_text_is_read_from_a_file_an_option_or_standard_input(tmp_path, stdin):
    file = tmp_path / "text.txt"
    file.write_text("from a file", encoding="utf-8")
    stdin(b"from stdin")
    assert text_of("inspect", str(file), None) == "from a file"
    assert text_of("inspect", None, "from an option") == "from an option"
    assert text_of("inspect", STDIN, None) == "from stdin"


@pytest.mark.parametrize(("file", "text"), [(None, None), ("a.txt", "a")])
def test_exactly_one_text_is_required(file, text):
    with pytest.raises(UsageError, match="inspect needs one text"):
        text_of("inspect", file, text)


def test_a_file_that_is_not_utf8_is_rejected_with_its_offset(tmp_path):
    file = tmp_path / "latin1.txt"
    file.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin1\.txt is not UTF-8: byte 0xe9 at offset 3"):
        text_of("inspect", str(file), None)
