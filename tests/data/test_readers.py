"""Text and JSONL files are read in parts, and errors name the line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_files import COMPRESS, parquet, refusal, texts

from tokenloom.data import readers
from tokenloom.data.documents import ReadState
from tokenloom.data.sources import find_sources, read_documents
from tokenloom.errors import DataError


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", [".txt", ".md", ".TXT"])
def test_a_text_file_is_one_document(kind: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.part.1{kind}{suffix}"
    file.write_bytes(COMPRESS[suffix]("\ufeffEin Bär\r\nund\rnoch\n\x00einer\r".encode()))
    (document,) = read_documents([str(file)])
    assert document.text == "Ein Bär\nund\nnoch\n\x00einer\n"
    assert document.source == str(file)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("aé中👩\r\n\ufeff\x00"), max_size=40), size=st.integers(1, 9))
def test_a_text_file_gives_the_same_text_as_python_wherever_reads_end(
    text: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_READ_BYTES", max(3, size))
    (tmp_path / "book.txt").write_bytes(text.encode())
    expected = (tmp_path / "book.txt").read_text(encoding="utf-8-sig")
    assert "".join(texts(tmp_path / "book.txt")) == expected


def test_an_empty_file_has_no_document(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        (tmp_path / f"a.txt{suffix}").touch()
        (tmp_path / f"b.jsonl{suffix}").touch()
    assert texts(tmp_path) == []


def test_a_long_text_is_read_in_parts_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_bytes(b"word " * 1_000_000)
    (source,) = find_sources([str(tmp_path / "line.txt")])
    pieces = list(source.read(ReadState()))
    assert max(len(piece.text) for piece in pieces) <= 1 << 20
    assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.text for piece in pieces) == "word " * 1_000_000


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("x")
    (source,) = find_sources([str(tmp_path / "book.txt")])
    (tmp_path / "book.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*book\.txt: No such file"):
        list(source.read(ReadState()))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_jsonl_gives_one_document_per_line(suffix: str, tmp_path: Path) -> None:
    lines = b'\xef\xbb\xbf{"text": "a\\r\\nb"}\r\n\n{"id": 1, "text": "\\ud83d\\ude80 \xc3\xa9"}\n'
    lines += b'{"text": null}\n{"text": ""}'
    (tmp_path / f"data.jsonl{suffix}").write_bytes(COMPRESS[suffix](lines))
    assert texts(tmp_path / f"data.jsonl{suffix}") == ["a\r\nb", "🚀 é"]


def test_jsonl_reads_another_key(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"body": "x", "text": "y"}')
    assert texts(tmp_path / "data.jsonl", text_key="body") == ["x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"content": "x", "id": 1}', 'line 2 has no "text". It has: content, id. Choose one with --data.text-key.'),
        (b"{}", 'line 2 has no "text".'),
        (b'{"text": 5}', '"text" of {} line 2 is int, not text.'),
        (b'["x"]', 'line 2: expected an object with "text", got list'),
        (b'"x"', 'line 2: expected an object with "text", got str'),
        (b'{"text": "x"', "line 2 is not valid JSON: Expecting ',' delimiter at column"),
        (b"plain", "line 2 is not valid JSON: Expecting value at column 1."),
        (b"[" * 100_000, "line 2 cannot be parsed as JSON"),
        (b'{"text": ' + b"1" * 5_000 + b"}", "line 2 cannot be parsed as JSON"),
        (b'{"text": "a\xffb"}', "byte 0xff at offset 25."),
        (b'{"text": "a\\ud800b"}', "line 2 contains the lone surrogate '\\ud800'"),
    ],
)
def test_an_invalid_jsonl_line_is_reported_with_its_number(line: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"text": "ok"}'.replace(b"\n", b"") + b"\n" + line + b"\n")
    expected = message.format(file) if "{}" in message else message
    if "offset" in message:
        expected = f"byte 0xff at offset {15 + line.index(0xFF)}."
    assert expected in refusal(file)


def test_a_record_over_the_size_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_MAX_RECORD_BYTES", 1 << 20)
    (tmp_path / "data.jsonl").write_bytes(b'{"text": "' + b"x" * (1 << 20) + b'"}\n')
    assert "line 1 is longer than 1 MiB" in refusal(tmp_path / "data.jsonl")


def test_reading_records_the_sha256_and_size_of_files(tmp_path: Path) -> None:

    names = []
    for suffix, compress in COMPRESS.items():
        (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"some text " * 1_000))
        names.append(str(tmp_path / f"a.txt{suffix}"))
    names.append(str(parquet(tmp_path / "b.parquet", text=["x"])))
    state = ReadState()
    list(read_documents(names, state))
    assert state.sha256 == {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names}
    assert state.bytes_read == sum(Path(name).stat().st_size for name in names)
