"""Folders are read without what is not text of the user, and links cannot make reading endless."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from source_files import refusal, texts
from written_shards import write_shards

from tokenloom.data.folders import list_folder, skipped_notices
from tokenloom.data.tokenizers import Tokenizer


def write_tree(folder: Path, *files: str) -> None:
    """Write files that contain their names."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    write_tree(tmp_path, "elsewhere/b.txt", "elsewhere/deep/c.txt", "data/a.txt")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert texts(tmp_path / "data") == ["data/a.txt", "elsewhere/b.txt", "elsewhere/deep/c.txt"]


def test_what_several_links_lead_to_is_read_once(tmp_path: Path) -> None:
    write_tree(tmp_path, "data/sub/a.txt", "data/b.txt")
    data = tmp_path / "data"
    (data / "loop").symlink_to(data)
    (data / "sub" / "up").symlink_to(tmp_path)
    (data / "again").symlink_to(data / "sub")
    (data / "0.txt").symlink_to(data / "sub" / "a.txt")
    assert list_folder(data).files == [data / "b.txt", data / "sub" / "a.txt"]


def test_a_broken_link_is_refused_because_its_text_would_be_missing(tmp_path: Path) -> None:
    write_tree(tmp_path, "a.txt")
    link = tmp_path / "b.txt"
    link.symlink_to(tmp_path / "gone.txt")
    for name in (tmp_path, link):
        assert refusal(name) == f"cannot read {link}: No such file or directory. Check where the link leads."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(20)
def test_pipes_sockets_and_devices_are_ignored_in_folders_and_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    write_tree(tmp_path, "a.txt")
    os.mkfifo("pipe.txt")
    Path("device.txt").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as unix_socket:
        unix_socket.bind("socket.txt")
        assert texts(".") == texts("*.txt") == ["a.txt"]
        assert refusal("pipe.txt") == ("pipe.txt is a pipe, not a file. Pass a file, or - to read standard input.")
        for name in ("socket.txt", "device.txt", "/dev/null"):
            assert refusal(name).startswith(f"{name} is a device or socket, not a file.")


def test_folders_that_programs_write_are_skipped_and_named(tmp_path: Path, byte: Tokenizer) -> None:
    write_tree(
        tmp_path,
        *("book.txt", "notes/a.md", ".git/x.txt", "venv/pyvenv.cfg", "venv/lib/licence.txt"),
        *("runs/one/config.toml", "runs/one/identity.json", "runs/one/checkpoints/step-1/README.md"),
        *("exported/config.json", "exported/model.safetensors", "exported/README.md"),
        *("tokens/merges.txt", "tokens/vocab.json"),
    )
    write_shards(tmp_path / "shards", byte, train=[byte.encode_array("a")], val=[])
    write_tree(tmp_path, "shards/notes.txt", "data/meta.json", "data/config.json", "data/b.txt")
    assert texts(tmp_path) == ["book.txt", "data/b.txt", "notes/a.md"]
    assert {path.relative_to(tmp_path).as_posix(): kind for path, kind in list_folder(tmp_path).skipped.items()} == {
        ".git": "hidden",
        "exported": "a model",
        "runs/one": "a run",
        "shards": "token shards",
        "tokens": "a tokenizer",
        "venv": "a virtual environment",
    }
    assert skipped_notices([str(tmp_path), "-", "tinyshakespeare", str(tmp_path / "exported")]) == [
        f"skipped 6 folders: {tmp_path / '.git'} (hidden), {tmp_path / 'exported'} (a model), "
        f"{tmp_path / 'runs/one'} (a run), 3 more",
        "skipped 2 files of other types: 2 .json",
    ]
    assert skipped_notices([str(tmp_path / "notes")]) == []


def test_files_of_other_types_are_counted_in_a_notice(tmp_path: Path) -> None:
    other = ("a.html", "sub/b.HTML", "c.csv", "d.csv.gz", "e.pdf", "LICENSE", "f.docx", ".hidden.html")
    write_tree(tmp_path, "book.txt", "notes.md.gz", *other)
    assert skipped_notices([str(tmp_path)]) == ["skipped 7 files of other types: 2 .csv, 2 .html, 1 .docx, 2 others"]
    write_tree(tmp_path, "pages/a.html", "pages/LICENSE", "pages/b.html")
    assert "pages contains no supported file, only 3 files of other types: 2 .html, 1 without a suffix. " in refusal(
        tmp_path / "pages"
    )


def test_a_folder_named_as_text_that_is_a_model_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, "exported/config.json", "exported/model.safetensors", "exported/README.md")
    folder = tmp_path / "exported"
    assert refusal(folder) == f"{folder} is a model, not text. To read files in it, name them: {folder}/*.md."
    assert texts(folder / "*.md") == ["exported/README.md"]


def test_a_folder_can_have_the_suffix_of_a_text_file(tmp_path: Path) -> None:
    write_tree(tmp_path, "x.txt/z.txt", "y.jsonl.gz/a.txt")
    assert texts(tmp_path) == ["x.txt/z.txt", "y.jsonl.gz/a.txt"]
    assert texts(tmp_path / "x.txt") == ["x.txt/z.txt"]


def test_a_subfolder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, "a.txt", "locked/b.txt")
    scandir = os.scandir

    def refuse(path: Path):  # root may list every folder
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    expected = f"cannot list folder {tmp_path / 'locked'}: Permission denied. Check its permissions."
    assert refusal(tmp_path) == expected


def test_unusual_json_records_are_read_or_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    for record, expected in {
        '{"text": "a", "text": "b"}': ["b"],
        '{"text": "a\u2028b"}\r\n\r\n{"text": "c\\u0000"}': ["a\u2028b", "c\0"],
        json.dumps({"text": "\U0001f600"}): ["\U0001f600"],
    }.items():
        file.write_text(record, encoding="utf-8", newline="")
        assert texts(file) == expected
    for record in ('{"text": NaN}', '{"text": "a", "n": ' + "9" * 5_000 + "}", "[" * 100_000, '{"text": "\\ud800"}'):
        file.write_text(record)
        assert f"{file} line 1" in refusal(file)
