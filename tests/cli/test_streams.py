"""Standard streams that lack characters, are closed, or fail."""

import io
import os
import sys

import pytest

from tokenloom.cli.streams import standard_streams
from tokenloom.errors import OutputError


class FailingFile(io.RawIOBase):
    def __init__(self, error: OSError) -> None:
        self.error = error

    def writable(self):
        return True

    def write(self, data):
        raise self.error


def stream(raw, encoding="utf-8"):
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_every_character_can_be_written_in_every_encoding(monkeypatch, name):
    for encoding in ("ascii", "cp1252", "latin-1", "utf-8"):
        written = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding=encoding))
        with standard_streams():
            print("é … ≥ 語 ␛ \ud800", file=getattr(sys, name))
        assert written.getvalue().decode(encoding).startswith("\\xe9" if encoding == "ascii" else "é")


def test_characters_that_an_encoding_lacks_are_written_as_escapes_and_our_symbols_in_ascii(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with standard_streams():
        print("… ≥ é 語 👋 ␛[0m")
    assert written.getvalue() == rb"... >= \xe9 \u8a9e \U0001f44b \x1b[0m" + b"\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_at_the_start_can_be_written(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    with standard_streams():
        print("text", file=getattr(sys, name))
    assert getattr(sys, name) is None


def test_results_that_cannot_be_written_are_an_error_and_messages_are_discarded(monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(sys, "stdout", stream(FailingFile(full)))
    monkeypatch.setattr(sys, "stderr", stream(FailingFile(full)))
    with standard_streams():
        print("message", file=sys.stderr, flush=True)
        print("result")
        with pytest.raises(OutputError, match="cannot write to standard output: No space left on device"):
            sys.stdout.flush()
        print("result", flush=True)  # reported once


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    saved = os.dup(2)
    os.close(2)
    try:
        with standard_streams(), open(tmp_path / "weights", "wb") as file:
            number = file.fileno()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert number > 2


def test_the_streams_are_restored():
    before = sys.stdout, sys.stderr
    with standard_streams():
        assert sys.stdout is not before[0]
    assert (sys.stdout, sys.stderr) == before
