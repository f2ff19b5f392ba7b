"""Parquet files are read one document per row."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from source_files import COMPRESS, parquet, refusal, texts

from tokenloom.errors import MissingExtraError


@pytest.mark.parametrize("suffix", COMPRESS)
def test_parquet_gives_one_document_per_row(suffix: str, tmp_path: Path) -> None:
    plain = parquet(tmp_path / "data.parquet", text=[f"row {i} é\r\n" for i in range(200)] + [None, ""], id=[0] * 202)
    file = tmp_path / f"again.parquet{suffix}"
    file.write_bytes(COMPRESS[suffix](plain.read_bytes()))
    assert texts(file) == [f"row {i} é\r\n" for i in range(200)]


def test_parquet_reads_every_type_of_text_column(tmp_path: Path) -> None:
    import pyarrow

    kinds = [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()]
    kinds += [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary_view()]
    for kind in kinds:
        file = parquet(tmp_path / "data.parquet", text=pyarrow.array(["a", "b"]).cast(kind))  # type: ignore[arg-type]
        assert texts(file) == ["a", "b"], kind
    file = parquet(tmp_path / "data.parquet", text=pyarrow.array(["a", "b", "a"]).dictionary_encode())  # type: ignore[arg-type]
    assert texts(file) == ["a", "b", "a"]


def test_a_column_without_values_is_empty_text(tmp_path: Path) -> None:
    import pyarrow

    file = parquet(tmp_path / "data.parquet", text=pyarrow.nulls(3))
    assert texts(file) == []


def test_a_column_whose_name_has_a_dot_is_not_a_nested_one(tmp_path: Path) -> None:
    nested, flat = [{"b": "nested"}], ["flat"]
    for columns in ({"a": nested, "a.b": flat}, {"a.b": flat, "a": nested}):
        assert texts(parquet(tmp_path / "data.parquet", **columns), text_key="a.b") == flat
    assert 'has no column "a.b". It has: a.' in refusal(parquet(tmp_path / "data.parquet", a=nested), text_key="a.b")


def test_two_columns_with_one_name_are_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    file = tmp_path / "data.parquet"
    write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), file)
    assert f'{file} has several columns "text".' in refusal(file)


def test_a_column_that_is_not_text_is_refused(tmp_path: Path) -> None:
    for values in ([["a"]], [{"a": "b"}], [1.5]):
        file = parquet(tmp_path / "data.parquet", text=values)
        assert "not text" in refusal(file)


def test_an_invalid_parquet_file_is_refused(tmp_path: Path) -> None:
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
