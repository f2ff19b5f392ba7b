"""Lines that another process appends are read once, whole, and again from the start if the file is another one."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.growing_file import Cursor, last_lines, read_appended


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_each_line_is_read_once(tmp_path):
    path = tmp_path / "log"
    append(path, b"one\ntwo\n")
    first = read_appended(path)
    assert (first.lines, first.reset, first.more) == ([b"one", b"two"], False, False)
    assert read_appended(path, first.cursor).lines == []
    append(path, b"three\n\n")
    second = read_appended(path, Cursor.parse(str(first.cursor)))
    assert (second.lines, second.reset) == ([b"three"], False)


def test_a_line_is_read_when_its_line_break_is_written(tmp_path):
    path = tmp_path / "log"
    append(path, b'{"step": 1}\n{"st')
    first = read_appended(path)
    assert first.lines == [b'{"step": 1}']
    append(path, b'ep": 2}')
    assert read_appended(path, first.cursor).lines == []
    append(path, b"\n")
    assert read_appended(path, first.cursor).lines == [b'{"step": 2}']


@given(st.binary(max_size=200), st.integers(1, 9))
def test_in_pieces_of_any_size_all_lines_are_read(tmp_path_factory, content, max_bytes):
    path = tmp_path_factory.mktemp("pieces") / "log"
    path.write_bytes(content.replace(b"\n", b"\n\n") + b"\n")
    read, cursor, more = [], None, True
    while more:
        appended = read_appended(path, cursor, max_bytes)
        assert not appended.reset
        assert cursor is None or appended.cursor.offset > cursor.offset or not appended.more
        read, cursor, more = read + appended.lines, appended.cursor, appended.more
    expected = [line for line in content.split(b"\n") if line.strip()]
    if all(len(line) < max_bytes for line in expected):  # a longer line is read in pieces
        assert read == expected


def test_a_file_that_was_replaced_is_read_from_its_start(tmp_path):
    path = tmp_path / "log"
    append(path, b"one\ntwo\nthree\n")
    cursor = read_appended(path).cursor
    (tmp_path / "new").write_bytes(b"one\ntwo\n3\nfour\n")
    os.replace(tmp_path / "new", path)
    again = read_appended(path, cursor)
    assert (again.lines, again.reset) == ([b"one", b"two", b"3", b"four"], True)
    assert not read_appended(path, again.cursor).reset


@pytest.mark.parametrize("content", [b"one\n", b"one\ntwo\nTHREE\n", b"other lines that are longer than before\n"])
def test_a_file_whose_content_was_replaced_in_place_is_read_from_its_start(tmp_path, content):
    path = tmp_path / "log"
    append(path, b"one\ntwo\nthree\n")
    cursor = read_appended(path).cursor
    with path.open("r+b") as file:  # the inode stays
        file.truncate(0)
        file.write(content)
    again = read_appended(path, cursor)
    assert (again.lines, again.reset) == (content.splitlines(), True)


def test_a_file_that_does_not_exist_has_no_lines(tmp_path):
    path = tmp_path / "log"
    none = read_appended(path)
    assert (none.lines, none.reset) == ([], False)
    append(path, b"one\n")
    first = read_appended(path, none.cursor)
    assert (first.lines, first.reset) == ([b"one"], False)
    path.unlink()
    assert read_appended(path, first.cursor).reset


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.x", "1.2.-3", "1.2.3.4", "1.2.3" + "0" * 20, "١.٢.٣"])
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.parse(text)


def test_the_last_lines_are_whole(tmp_path):
    path = tmp_path / "log"
    assert last_lines(path, 2) == []
    append(path, b"one\ntwo\nthree\nfo")
    assert last_lines(path, 2) == [b"two", b"three"]
    assert last_lines(path, 9) == [b"one", b"two", b"three"]
    assert last_lines(path, 9, max_bytes=10) == [b"three"]
