"""Invalid text is refused with its location, or replaced and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_files import COMPRESS, refusal

from tokenloom.data import readers
from tokenloom.data.documents import ReadOptions, ReadState
from tokenloom.data.sources import read_documents


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.sampled_from([b"a", "é".encode(), "中".encode(), b"\xff", b"\xc3", b"\xf0\x9f", "\ufffd".encode()])
    )
)
def test_replacing_invalid_bytes_gives_the_same_text_as_python_and_counts_them(
    data: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_READ_BYTES", 3)
    content = b"".join(data)
    (tmp_path / "book.txt").write_bytes(content)
    state = ReadState(ReadOptions(encoding_errors="replace"))
    assert "".join(d.text for d in read_documents([str(tmp_path / "book.txt")], state)) == content.decode(
        errors="replace"
    )
    assert state.replacements == content.decode(errors="replace").count("\ufffd") - content.decode(
        errors="ignore"
    ).count("\ufffd")


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("where", [0, 1, 1_204, (1 << 20) - 1, 1 << 20, 2_345_678])
def test_an_invalid_byte_is_reported_with_file_and_offset(where: int, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](b"\r\n" * (where // 2) + b"a" * (where % 2) + b"\xff" + b"b" * 10))
    assert refusal(file) == (
        f"{file} is not UTF-8: byte 0xff at offset {where:,}. Re-encode it, or pass --data.encoding-errors replace."
    )


def test_offsets_count_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    assert "byte 0xff at offset 5." in refusal(tmp_path / "book.txt")


def test_an_incomplete_character_at_the_end_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"ab\xe4\xb8")
    assert "byte 0xe4 at offset 2." in refusal(tmp_path / "book.txt")


def test_utf16_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes("Hallo".encode("utf-16"))
    (tmp_path / "book.jsonl").write_bytes('{"text": "Hallo"}'.encode("utf-16"))
    for name in ("book.txt", "book.jsonl"):
        for encoding_errors in ("strict", "replace"):  # replacing every byte that is not UTF-8 would leave no text
            message = refusal(tmp_path / name, encoding_errors=encoding_errors)
            assert message == f"{tmp_path / name} is UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8."


def test_lone_surrogates_in_json_are_replaced_on_request(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a\\ud800b\\udc00\\ud83d\\ude80"}')
    state = ReadState(ReadOptions(encoding_errors="replace"))
    (document,) = read_documents([str(tmp_path / "data.jsonl")], state)
    assert document.text == "a\ufffdb\ufffd🚀"
    assert state.replacements == 2
