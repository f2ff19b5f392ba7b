"""Text arguments of commands: a text, a file, or standard input, all read by the rules of training text."""

import io
import sys
from types import SimpleNamespace

import pytest

from tokenloom.cli.stdin import text_argument, text_of, text_or_stdin
from tokenloom.errors import DataError, UsageError


@pytest.fixture
def stdin(monkeypatch):
    def provide(data: bytes):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    return provide


def test_a_dash_reads_standard_input(stdin):
    stdin("prompt é".encode())
    assert text_or_stdin("-", "--prompt") == "prompt é"
    assert text_or_stdin("as it is", "--prompt") == "as it is"
    assert text_argument("-", "--stop") == "-"


def test_standard_input_that_is_not_utf8_is_rejected_with_its_offset(stdin):
    stdin(b"caf\xe9")
    with pytest.raises(DataError, match="standard input is not UTF-8: byte 0xe9 at offset 3"):
        text_or_stdin("-", "--prompt")


def test_an_argument_that_is_not_utf8_is_rejected_with_its_offset():
    with pytest.raises(DataError, match="--prompt is not UTF-8: byte 0xe9 at offset 3"):
        text_argument("caf\udce9", "--prompt")


def test_a_missing_standard_input_is_one_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="no standard input"):
        text_or_stdin("-", "--prompt")


def test_every_way_to_pass_a_text_gives_the_same_text(tmp_path, stdin):
    content = b"\xef\xbb\xbfone\r\ntwo\rthree\n"
    (tmp_path / "text.txt").write_bytes(content)
    stdin(content)
    texts = {
        text_of("inspect", str(tmp_path / "text.txt"), None),
        text_of("inspect", "-", None),
        text_of("inspect", None, content.decode()),
        text_or_stdin(content.decode(), "--prompt"),
    }
    assert texts == {"one\ntwo\nthree\n"}


@pytest.mark.parametrize(("file", "text"), [(None, None), ("a.txt", "a")])
def test_exactly_one_text_is_required(file, text):
    with pytest.raises(UsageError, match="inspect needs one text"):
        text_of("inspect", file, text)


def test_a_file_that_is_not_utf8_is_rejected_with_its_offset(tmp_path):
    file = tmp_path / "latin1.txt"
    file.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin1\.txt is not UTF-8: byte 0xe9 at offset 3. Re-encode it\.$"):
        text_of("inspect", str(file), None)


def test_a_text_passed_as_a_file_is_shortened_and_the_option_is_named():
    with pytest.raises(DataError, match="--text") as refused:
        text_of("inspect", "it was the best of times " * 100, None)
    assert len(str(refused.value)) < 300
