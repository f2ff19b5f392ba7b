"""Every kind of source gives its text, and every fault in it names its place."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenloom.data import decompression, readers
from tokenloom.data.documents import ReadOptions, ReadState
from tokenloom.data.sources import find_sources, read_documents
from tokenloom.errors import DataError, MissingExtraError

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def texts(*names: str | Path, **options: str) -> list[str]:
    return [document.text for document in read_documents(map(str, names), ReadState(ReadOptions(**options)))]  # type: ignore[arg-type]


def refusal(*names: str | Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        texts(*names, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(path: Path, **columns: list) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


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
def test_a_text_file_reads_as_python_reads_it_wherever_chunks_end(
    text: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_READ_BYTES", max(3, size))
    (tmp_path / "book.txt").write_bytes(text.encode())
    expected = (tmp_path / "book.txt").read_text(encoding="utf-8-sig")
    assert "".join(texts(tmp_path / "book.txt")) == expected


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(
        st.sampled_from([b"a", "é".encode(), "中".encode(), b"\xff", b"\xc3", b"\xf0\x9f", "\ufffd".encode()])
    )
)
def test_replacing_bad_bytes_gives_pythons_result_and_counts(
    data: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_READ_BYTES", 3)
    content = b"".join(data)
    (tmp_path / "book.txt").write_bytes(content)
    met = ReadState(ReadOptions(encoding_errors="replace"))
    assert "".join(d.text for d in read_documents([str(tmp_path / "book.txt")], met)) == content.decode(
        errors="replace"
    )
    assert met.replacements == content.decode(errors="replace").count("\ufffd") - content.decode(errors="ignore").count(
        "\ufffd"
    )


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("where", [0, 1, 1_204, (1 << 20) - 1, 1 << 20, 2_345_678])
def test_a_bad_byte_is_named_by_file_and_offset(where: int, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](b"\r\n" * (where // 2) + b"a" * (where % 2) + b"\xff" + b"b" * 10))
    assert refusal(file) == (
        f"{file} is not UTF-8: byte 0xff at offset {where:,}. Re-encode it, or pass --data.encoding-errors replace."
    )


def test_offsets_count_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    assert "byte 0xff at offset 5." in refusal(tmp_path / "book.txt")


def test_half_a_character_at_the_end_is_a_bad_byte(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(b"ab\xe4\xb8")
    assert "byte 0xe4 at offset 2." in refusal(tmp_path / "book.txt")


def test_utf16_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes("Hallo".encode("utf-16"))
    assert "at offset 0. It looks like UTF-16. Re-encode it" in refusal(tmp_path / "book.txt")


def test_an_empty_file_has_no_document(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst"):
        (tmp_path / f"a.txt{suffix}").touch()
        (tmp_path / f"b.jsonl{suffix}").touch()
    assert texts(tmp_path) == []


def test_a_folder_is_read_deeply_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/c/y.txt.gz", "a.txt", ".hidden.txt", ".git/x.txt", "image.png", "Z.jsonl.zst"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"text": name}) if "jsonl" in name else name
        file.write_bytes(COMPRESS[file.suffix if file.suffix in COMPRESS else ""](content.encode()))
    assert texts(tmp_path) == ["Z.jsonl.zst", "a/c/y.txt.gz", "a/z.md", "a.txt", "b.txt"]


def test_a_glob_is_read_in_order(tmp_path: Path) -> None:
    for name in ("b1.txt", "b0.txt", "c.txt", "b2.png", "deep/b3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "b*") == ["b0.txt", "b1.txt"]
    assert texts(tmp_path / "**" / "b*.txt") == ["b0.txt", "b1.txt", "deep/b3.txt"]
    assert "matches nothing." in refusal(tmp_path / "x*.txt")
    assert "b2.png" in refusal(tmp_path / "*.png")


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "book[1].txt").write_text("one")
    assert texts(tmp_path / "book[1].txt") == ["one"]


def test_a_folder_with_nothing_to_read_says_what_could_be(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    assert refusal(tmp_path) == (
        f"folder {tmp_path} contains no supported file. Supported: .txt .md .jsonl .parquet, each also as .gz or .zst."
    )


def test_a_file_of_another_kind_says_how_it_could_be_read(tmp_path: Path) -> None:
    for name in ("notes.rst", "README", "data.json", "book.txt.bz2", "x.gz"):
        (tmp_path / name).touch()
        assert f"- < {name}" in refusal(tmp_path / name)


def test_a_missing_file_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "book.txt").touch()
    assert f"Did you mean {tmp_path / 'book.txt'}?" in refusal(tmp_path / "bok.txt")
    assert "Did you mean tinyshakespeare?" in refusal("tinyshakespear")
    assert "Named corpora: python-docs, the-verdict, tinyshakespeare." in refusal(tmp_path / "no" / "where")
    assert 'named corpus ""' in refusal("")


def test_a_file_that_vanishes_or_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("x")
    (source,) = find_sources([str(tmp_path / "book.txt")])
    (tmp_path / "book.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*book\.txt: No such file"):
        list(source.read(ReadState()))


def test_a_long_text_arrives_in_pieces_of_a_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_bytes(b"word " * 1_000_000)
    (source,) = find_sources([str(tmp_path / "line.txt")])
    pieces = list(source.read(ReadState()))
    assert max(len(piece.text) for piece in pieces) <= 1 << 20
    assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(piece.text for piece in pieces) == "word " * 1_000_000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_unfolds_hugely_is_read_in_bounded_chunks(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"zeros.txt{suffix}"
    file.write_bytes(COMPRESS[suffix](bytes(300_000_000)))
    (source,) = find_sources([str(file)])
    tracemalloc.start()
    try:
        assert sum(len(piece.text) for piece in source.read(ReadState())) == 300_000_000
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_is_cut_off(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.txt{suffix}"
    packed = COMPRESS[suffix](bytes(range(32, 127)) * 10_000)
    for keep in (len(packed) - 1, len(packed) // 2, 12):
        file.write_bytes(packed[:keep])
        assert "is truncated" in refusal(file)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_what_its_name_says_is_refused(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"book.txt{suffix}"
    file.write_bytes(b"plain text, never compressed")
    assert "is not a valid" in refusal(file)


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(bytes(range(32, 127)) * 1_000))
    for at in (len(packed) // 2, len(packed) - 6):
        damaged = packed.copy()
        damaged[at] ^= 0xFF
        (tmp_path / "book.txt.gz").write_bytes(damaged)
        assert "gzip" in refusal(tmp_path / "book.txt.gz")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_joined_compressed_files_read_as_one(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"book.txt{suffix}").write_bytes(COMPRESS[suffix](b"first ") + COMPRESS[suffix](b"second"))
    assert texts(tmp_path / f"book.txt{suffix}") == ["first second"]


def test_compression_reads_any_amount_at_once() -> None:
    data = zlib.compress(b"x") * 50_000
    for suffix in (".gz", ".zst"):
        with decompression.decompressed(io.BytesIO(COMPRESS[suffix](data)), suffix, "x") as file:
            assert file.read(7) + file.read() == data


@pytest.mark.parametrize("suffix", COMPRESS)
def test_jsonl_gives_a_document_a_line(suffix: str, tmp_path: Path) -> None:
    lines = b'\xef\xbb\xbf{"text": "a\\r\\nb"}\r\n\n{"id": 1, "text": "\\ud83d\\ude80 \xc3\xa9"}\n'
    lines += b'{"text": null}\n{"text": ""}'
    (tmp_path / f"data.jsonl{suffix}").write_bytes(COMPRESS[suffix](lines))
    assert texts(tmp_path / f"data.jsonl{suffix}") == ["a\r\nb", "🚀 é"]


def test_jsonl_reads_another_key(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"body": "x", "text": "y"}')
    assert texts(tmp_path / "data.jsonl", text_key="body") == ["x"]


@pytest.mark.parametrize(
    ("line", "says"),
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
def test_a_bad_jsonl_line_is_named(line: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"text": "ok"}'.replace(b"\n", b"") + b"\n" + line + b"\n")
    expected = says.format(file) if "{}" in says else says
    if "offset" in says:
        expected = f"byte 0xff at offset {15 + line.index(0xFF)}."
    assert expected in refusal(file)


def test_lone_surrogates_in_json_are_replaced_if_asked(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"text": "a\\ud800b\\udc00\\ud83d\\ude80"}')
    met = ReadState(ReadOptions(encoding_errors="replace"))
    (document,) = read_documents([str(tmp_path / "data.jsonl")], met)
    assert document.text == "a\ufffdb\ufffd🚀"
    assert met.replacements == 2


def test_a_record_too_long_to_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_MAX_RECORD_BYTES", 1 << 20)
    (tmp_path / "data.jsonl").write_bytes(b'{"text": "' + b"x" * (1 << 20) + b'"}\n')
    assert "line 1 is longer than 1 MiB" in refusal(tmp_path / "data.jsonl")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_parquet_gives_a_document_a_row(suffix: str, tmp_path: Path) -> None:
    plain = parquet(tmp_path / "data.parquet", text=[f"row {i} é\r\n" for i in range(200)] + [None, ""], id=[0] * 202)
    file = tmp_path / f"again.parquet{suffix}"
    file.write_bytes(COMPRESS[suffix](plain.read_bytes()))
    assert texts(file) == [f"row {i} é\r\n" for i in range(200)]


def test_parquet_reads_every_kind_of_text_column(tmp_path: Path) -> None:
    import pyarrow

    kinds = [pyarrow.string(), pyarrow.large_string(), pyarrow.binary(), pyarrow.string_view()]
    for kind in kinds:
        file = parquet(tmp_path / "data.parquet", text=pyarrow.array(["a", "b"]).cast(kind))  # type: ignore[arg-type]
        assert texts(file) == ["a", "b"], kind
    file = parquet(tmp_path / "data.parquet", text=pyarrow.array(["a", "b", "a"]).dictionary_encode())  # type: ignore[arg-type]
    assert texts(file) == ["a", "b", "a"]


def test_a_bad_parquet_file_is_named(tmp_path: Path) -> None:
    file = parquet(tmp_path / "data.parquet", content=["x"], n=[1])
    assert f'{file} has no column "text". It has: content, n. Choose one with --data.text-key.' == refusal(file)
    assert 'column "n" of' in refusal(file, text_key="n")
    whole = parquet(file, text=["some text " * i for i in range(500)]).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PAR1", b"nonsense " * 100):
        file.write_bytes(content)
        assert "is not a valid Parquet file" in refusal(file)
    file = parquet(file, text=[b"fine", b"a\xff"])
    assert f"{file} row 2 is not UTF-8: byte 0xff at offset 1." in refusal(file)
    assert texts(file, encoding_errors="replace") == ["fine", "a\ufffd"]


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = parquet(tmp_path / "data.parquet", text=["x"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"tokenloom\[data\]"):
        texts(file)


def test_a_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    met = ReadState()
    assert [d.text for d in read_documents([f"hf:{tmp_path / 'set'}"], met)] == ["one", "two"]
    assert met.bytes_read > 0
    assert 'has no "body". It has: text.' in refusal(f"hf:{tmp_path / 'set'}", text_key="body")


def test_a_dataset_that_is_not_there_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "cannot read the dataset hf:nobody/nothing" in refusal("hf:nobody/nothing")
    assert "cannot read the dataset hf:" in refusal("hf:")


def test_datasets_that_are_not_installed_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"tokenloom\[data\]"):
        texts("hf:some/name")


def test_standard_input_is_read_from_what_was_kept_of_it() -> None:
    kept = io.BytesIO(b"\xef\xbb\xbfone\r\ntwo")
    (source,) = find_sources(["-"], kept)
    for _ in range(2):  # more than once
        assert "".join(piece.text for piece in source.read(ReadState())) == "one\ntwo"
    kept = io.BytesIO(b"ab\xff")
    with pytest.raises(DataError, match="standard input is not UTF-8: byte 0xff at offset 2"):
        list(find_sources(["-"], kept)[0].read(ReadState()))
    assert "can be read only once" in refusal("-")


def test_a_reading_knows_the_sha256_and_bytes_of_files(tmp_path: Path) -> None:
    import hashlib

    names = []
    for suffix, compress in COMPRESS.items():
        (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"some text " * 1_000))
        names.append(str(tmp_path / f"a.txt{suffix}"))
    names.append(str(parquet(tmp_path / "b.parquet", text=["x"])))
    met = ReadState()
    list(read_documents(names, met))
    assert met.sha256 == {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names}
    assert met.bytes_read == sum(Path(name).stat().st_size for name in names)


def test_the_identity_of_a_file_changes_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = find_sources([str(file)])[0].identity
    assert find_sources([str(file)])[0].identity == before
    file.write_text("three")
    assert find_sources([str(file)])[0].identity != before
