"""Finished shards outlive every failure: bad text, a full disk, a killed process."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from prepared import config, contents, text

from tokenloom import storage
from tokenloom.data import prepare as prepare_module
from tokenloom.data import readers, shard_jobs, splitting
from tokenloom.data.prepare import prepare, prepare_cached
from tokenloom.data.shards_meta import FINISHED_FOLDER
from tokenloom.data.tokenizers import ENDOFTEXT, chunking
from tokenloom.errors import DataError

KEPT = "Finished shards are kept in {}: repeat the command to continue from them."


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_jobs, "SHARD_BYTES", 100)
    monkeypatch.setattr(storage, "fsync", lambda path: None)  # slow, and without effect unless the machine crashes


@pytest.fixture
def spoiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Many files, of which the last one is not valid text behind the part that a tokenizer is trained on."""
    monkeypatch.setattr(prepare_module, "TOKENIZER_TRAINING_CHARACTERS", 300)
    monkeypatch.setattr(readers, "_READ_BYTES", 50)
    monkeypatch.setattr(splitting, "_HASHED_CHARACTERS", 50)
    monkeypatch.setattr(chunking, "CHUNK_CHARACTERS", 50)
    folder = tmp_path / "spoiled"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i:02d}.txt").write_text(f"{i} words " * 15)
    (folder / "last.txt").write_bytes(b"the end of it " * 30 + b"\xff")
    return folder


def written(folder: Path) -> dict[str, int]:
    """When each file of tokens was written, by name."""
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.glob("*/tokens-*.bin")}


def finished_shards(folder: Path) -> dict[str, int]:
    """The same for the shards of a partial folder that have a record; for all of them if it is complete."""
    records = [file.stem.replace("-", "/tokens-") for file in (folder / FINISHED_FOLDER).glob("*.json")]
    return {name: time for name, time in written(folder).items() if not records or name.removesuffix(".bin") in records}


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
@pytest.mark.parametrize("cached", [False, True])
def test_correcting_a_file_keeps_the_finished_shards(
    tokenizer: str, cached: bool, spoiled: Path, tmp_path: Path
) -> None:
    data, out = config(spoiled, tokenizer=tokenizer, val_fraction=0, workers=1), tmp_path / "data" / "out"
    call = partial(prepare_cached, data, tmp_path) if cached else partial(prepare, data, out)
    with pytest.raises(DataError, match=r"last\.txt is not UTF-8: byte 0xff") as caught:
        call()
    (kept,) = (tmp_path / "prepared" if cached else tmp_path / "data").iterdir()
    assert str(caught.value).endswith(KEPT.format(kept))
    finished = finished_shards(kept)
    assert len(finished) >= 10
    (spoiled / "last.txt").write_text("the end of it " * 30)
    shards = call()
    shards.verify()
    same = finished.items() & written(shards.path).items()
    assert len(same) >= 10  # all but those of the last file
    assert contents(shards.path) == contents(prepare(data, tmp_path / "fresh").path)
    assert [path.name for path in shards.path.parent.iterdir()] == [shards.path.name]


def test_another_option_for_reading_keeps_the_finished_shards(spoiled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="or pass --data.encoding-errors replace"):
        prepare_cached(config(spoiled, val_fraction=0, workers=1), tmp_path)
    (kept,) = (tmp_path / "prepared").iterdir()
    finished = finished_shards(kept)
    shards = prepare_cached(config(spoiled, val_fraction=0, workers=1, encoding_errors="replace"), tmp_path)
    assert len(finished) >= 10
    assert finished.items() <= written(shards.path).items()
    assert text(shards).endswith("of it \ufffd")


@pytest.mark.parametrize("change", [{"tokenizer": "gpt2"}, {"endoftext": "text"}, {"val_fraction": 0.5}])
def test_shards_of_other_options_are_written_again(change: dict, spoiled: Path, tmp_path: Path) -> None:
    (spoiled / "00.txt").write_text(f"some{ENDOFTEXT}text " * 20)
    with pytest.raises(DataError, match="not UTF-8"):
        prepare(config(spoiled, val_fraction=0, workers=1), tmp_path / "out")
    (spoiled / "last.txt").write_text("short")
    data = config(spoiled, **{"val_fraction": 0, "workers": 1, **change})
    assert contents(prepare(data, tmp_path / "out").path) == contents(prepare(data, tmp_path / "fresh").path)


def test_a_tokenizer_trained_on_other_text_is_trained_again(spoiled: Path, tmp_path: Path) -> None:
    data = config(spoiled, tokenizer="char", val_fraction=0, workers=1)
    with pytest.raises(DataError, match="not UTF-8"):
        prepare(data, tmp_path / "out")
    (spoiled / "last.txt").write_text("XYZ")
    shards = prepare(data, tmp_path / "out")
    assert contents(shards.path) == contents(prepare(data, tmp_path / "fresh").path)


def test_a_full_disk_at_any_moment_loses_no_finished_shard(corpus: Path, tmp_path: Path) -> None:
    data, out, partial_folder = config(corpus, workers=1), tmp_path / "out", tmp_path / ".out.partial"
    fresh = contents(prepare(data, tmp_path / "fresh").path)
    kept: dict[str, int] = {}
    calls_left = 0

    def fail(path: Path) -> None:
        nonlocal calls_left
        calls_left -= 1
        if calls_left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "fsync", fail)
        for attempt in range(1, 500):
            calls_left = attempt
            try:
                shards = prepare(data, out)
                break
            except DataError as error:
                message = str(error)
            assert message.startswith(f"cannot write token shards to {out}: No space left on device. Free disk space")
            assert message.endswith(KEPT.format(partial_folder)) == partial_folder.exists()
            finished = finished_shards(partial_folder) or written(out)
            assert kept.items() <= finished.items()
            kept = finished
    assert attempt > 20
    assert shards.already_prepared  # the last error came after the folder was in place
    assert kept == written(out)
    assert contents(out) == fresh
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "fresh", "out"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this platform")
def test_a_killed_worker_keeps_the_finished_shards(corpus: Path, tmp_path: Path) -> None:
    for i in range(200):
        (corpus / f"more {i}.txt").write_text(f"document {i} is longer " * 4)

    others = psutil.Process().children()  # such as the browser of other tests

    def kill_a_worker(what: str, *_: object) -> None:
        if what == "encoding" and len(list((tmp_path / ".out.partial" / FINISHED_FOLDER).glob("*.json"))) >= 5:
            for worker in [child for child in psutil.Process().children() if child not in others][:1]:
                with suppress(psutil.NoSuchProcess):  # it was killed before
                    worker.kill()

    with pytest.raises(DataError, match=r"an encoding process exited with status -9; it may have run out of memory\."):
        prepare(config(corpus, workers=2), tmp_path / "out", progress=kill_a_worker)
    finished = finished_shards(tmp_path / ".out.partial")
    assert len(finished) >= 5
    shards = prepare(config(corpus, workers=2), tmp_path / "out")
    shards.verify()
    assert finished.items() <= written(shards.path).items()


def test_a_folder_that_is_not_ours_is_never_removed(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"\.out\.partial exists and was not written by tokenloom prepare\. Move it"):
        prepare(config(corpus), tmp_path / "out")
    assert [path.name for path in (tmp_path / ".out.partial").iterdir()] == ["mine.txt"]


def test_an_output_folder_that_appears_meanwhile_is_not_replaced(corpus: Path, tmp_path: Path) -> None:
    def write(what: str, *_: object) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine.txt").write_text("mine")

    with pytest.raises(DataError, match=r"out exists and is not a folder of token shards.*Finished shards are kept"):
        prepare(config(corpus), tmp_path / "out", progress=write)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "out" / "mine.txt").unlink()
    prepare(config(corpus), tmp_path / "out").verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_a_symbolic_link_is_kept_and_its_target_is_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in ("empty", "missing"):
        link = tmp_path / f"link to {target}"
        link.symlink_to(target)
        prepare(config(corpus), link).verify()
        assert link.is_symlink()
        assert prepare(config(corpus), link).already_prepared
        assert prepare(config(corpus), tmp_path / target).already_prepared


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write everywhere")
def test_prepared_shards_in_a_read_only_folder_are_used(corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "data" / "out")
    (tmp_path / "data").chmod(0o500)
    try:
        assert prepare(config(corpus), tmp_path / "data" / "out").already_prepared
        with pytest.raises(DataError, match=r"Permission denied\. Check the path and its permissions"):
            prepare(config(corpus), tmp_path / "data" / "other")
    finally:
        (tmp_path / "data").chmod(0o700)


@pytest.mark.parametrize("out", [".", "..", "/"])
def test_a_folder_without_a_name_of_its_own_is_refused_if_it_is_used(
    out: str, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(corpus)
    with pytest.raises(DataError, match="exists and is not a folder of token shards"):
        prepare(config(corpus), out)
