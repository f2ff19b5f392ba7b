"""Durable writes: a crash, a full disk or a neighbour leaves the old content or the new one, never half of it."""

import os
import socket
import sys

import pytest

from tokenloom import storage
from tokenloom.storage import (
    atomic_file,
    atomic_folder,
    fsync_tree,
    recover_folders,
    replace_folder,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    write_text(target, "neu ✨")
    assert target.read_text(encoding="utf-8") == "neu ✨"
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


def test_json_ends_with_a_line_break(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half_and_fail():
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half_and_fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_while_filling_leaves_the_old_folder(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "old").touch()

    def fill_half_and_fail():
        with atomic_folder(target) as temporary:
            (temporary / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_half_and_fail()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["run"]


def test_what_a_killed_writer_left_is_not_taken_over(tmp_path):
    (tmp_path / ".run.tmp").mkdir()
    (tmp_path / ".run.tmp" / "stale").touch()
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "fresh").touch()
    assert names(tmp_path / "run") == ["fresh"]
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_replaced(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(storage, "_exchange", lambda a, b: False)
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "run") as temporary:
            (temporary / content).touch()
    assert names(tmp_path / "run") == ["new"]
    assert names(tmp_path) == ["run"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="renameat2 is a call of Linux")
def test_linux_exchanges_two_folders_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in-{name}").touch()
    assert storage._exchange(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path / "a") == ["in-b"]
    assert names(tmp_path / "b") == ["in-a"]


def test_a_replacement_that_a_crash_interrupted_is_undone(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_exchange", lambda a, b: False)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    (tmp_path / "old").rename(tmp_path / ".run.replaced")  # as it stands between the two renames
    recover_folders(tmp_path)
    assert names(tmp_path / "run") == ["old"]
    replace_folder(tmp_path / "new", tmp_path / "run")
    assert names(tmp_path / "run") == ["new"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_exchange", lambda a, b: False)
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", tmp_path / "old")
    assert names(tmp_path) == ["old"]


def test_what_a_finished_replacement_left_is_removed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / ".run.replaced").mkdir()
    recover_folders(tmp_path)
    assert names(tmp_path) == ["run"]


@pytest.mark.skipif(os.name == "nt", reason="sockets and pipes in a folder are for POSIX")
def test_nothing_beside_a_target_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        write_text(tmp_path / "a.txt", "text")
        with atomic_folder(tmp_path / "run") as temporary:
            (temporary / "file").touch()
    assert (tmp_path / "run" / "file").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows needs rights for symbolic links")
def test_flushing_a_tree_does_not_follow_links(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "loop").symlink_to(tmp_path / "run")
    (tmp_path / "run" / "broken").symlink_to(tmp_path / "nowhere")
    fsync_tree(tmp_path / "run")


def test_the_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
