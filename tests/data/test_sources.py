"""Sources are found by name: files, folders, globs, standard input, datasets."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from source_files import COMPRESS, refusal, texts

from tokenloom.data.documents import ReadState
from tokenloom.data.sources import find_sources, folder_name, read_documents, source_notices
from tokenloom.errors import DataError, MissingExtraError


def test_a_folder_is_read_recursively_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/c/y.txt.gz", "a.txt", ".hidden.txt", ".git/x.txt", "image.png", "Z.jsonl.zst"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"text": name}) if "jsonl" in name else name
        file.write_bytes(COMPRESS[file.suffix if file.suffix in COMPRESS else ""](content.encode()))
    assert texts(tmp_path) == ["Z.jsonl.zst", "a/c/y.txt.gz", "a/z.md", "a.txt", "b.txt"]


def test_a_local_path_with_the_name_of_a_corpus_or_dataset_needs_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("the-verdict", "python-docs", "hf:foo", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(f"local {name}")
        assert texts(f"./{name}") == [f"local {name}"]
    assert source_notices(["the-verdict", "./the-verdict", "python-docs", "tinyshakespeare", "hf:foo", "other"]) == [
        "the-verdict is the corpus of that name; write ./the-verdict for the local path",
        "python-docs is the corpus of that name; write ./python-docs for the local path",
        "hf:foo is the dataset of that name; write ./hf:foo for the local path",
    ]


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


def test_a_folder_without_supported_files_lists_the_supported_types(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    assert refusal(tmp_path) == (
        f"folder {tmp_path} contains no supported file, only 1 file of other types: 1 .png. "
        "Supported: .txt .md .jsonl .parquet, each also as .gz or .zst."
    )


def test_an_unsupported_file_type_suggests_standard_input(tmp_path: Path) -> None:
    for name in ("notes.rst", "README", "data.json", "book.txt.bz2", "x.gz"):
        (tmp_path / name).touch()
        assert refusal(tmp_path / name).endswith(f"standard input (- < {tmp_path / name}).")


def test_a_missing_file_suggests_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "book.txt").touch()
    assert f"Did you mean {tmp_path / 'book.txt'}?" in refusal(tmp_path / "bok.txt")
    assert "Did you mean tinyshakespeare?" in refusal("tinyshakespear")
    assert "Named corpora: python-docs, the-verdict, tinyshakespeare." in refusal(tmp_path / "no" / "where")
    assert 'named corpus ""' in refusal("")


def test_a_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    state = ReadState()
    assert [d.text for d in read_documents([f"hf:{tmp_path / 'set'}"], state)] == ["one", "two"]
    assert state.bytes_read > 0
    assert 'has no "body". It has: text.' in refusal(f"hf:{tmp_path / 'set'}", text_key="body")


def test_a_missing_dataset_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "cannot read the dataset hf:nobody/nothing" in refusal("hf:nobody/nothing")
    assert "cannot read the dataset hf:" in refusal("hf:")


def test_a_dataset_without_the_datasets_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"tokenloom\[data\]"):
        texts("hf:some/name")


def test_standard_input_can_be_read_more_than_once() -> None:
    stdin = io.BytesIO(b"\xef\xbb\xbfone\r\ntwo")
    (source,) = find_sources(["-"], {"-": stdin})
    for _ in range(2):
        assert "".join(piece.text for piece in source.read(ReadState())) == "one\ntwo"
    stdin = io.BytesIO(b"ab\xff")
    with pytest.raises(DataError, match="standard input is not UTF-8: byte 0xff at offset 2"):
        list(find_sources(["-"], {"-": stdin})[0].read(ReadState()))
    assert "can be read only once" in refusal("-")


def test_the_identity_of_a_file_changes_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    before = find_sources([str(file)])[0].identity
    assert find_sources([str(file)])[0].identity == before
    file.write_text("three")
    assert find_sources([str(file)])[0].identity != before


@pytest.mark.parametrize(
    ("source", "name"),
    [("texts/my book.txt.gz", "my-book"), ("hf:org/data", "data"), ("-", "stdin"), ("corpus/*.txt", ""), ("..", "")],
)
def test_a_folder_is_named_after_a_source(source, name):
    assert folder_name(source) == name
