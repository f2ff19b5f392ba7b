"""Existing shards are reused only if options, tokenizer and sources match."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from prepared import config, contents, text

from tokenloom.data import sources
from tokenloom.data.dataset_spec import DatasetSpec
from tokenloom.data.prepare import prepare, prepare_cached
from tokenloom.errors import DataError


def test_the_same_call_again_changes_nothing_and_reports_it(corpus: Path, tmp_path: Path) -> None:
    first = prepare(config(corpus, tokenizer="bpe:300"), tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    second = prepare(config(corpus, tokenizer="bpe:300", workers=1), tmp_path / "out")
    assert (first.already_prepared, second.already_prepared) == (False, True)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == before
    assert second.fingerprint == first.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_touched_or_moved_files_count_as_unchanged(corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "out")
    os.utime(corpus / "03.txt", (1, 1))
    assert prepare(config(corpus), tmp_path / "out").already_prepared
    corpus.rename(tmp_path / "moved")
    assert prepare(config(tmp_path / "moved"), tmp_path / "out").already_prepared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": "gpt2"}, "they were prepared with tokenizer 'byte', not 'gpt2'"),
        ({"val_fraction": 0.2}, "they were prepared with val_fraction 0.1, not 0.2"),
        ({"encoding_errors": "replace"}, "they were prepared with encoding_errors 'strict', not 'replace'"),
        ({"endoftext": "refuse"}, "they were prepared with endoftext 'token', not 'refuse'"),
    ],
)
def test_shards_with_other_options_are_never_overwritten(
    change: dict, message: str, corpus: Path, tmp_path: Path
) -> None:
    prepare(config(corpus), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError) as caught:
        prepare(config(corpus, **change), tmp_path / "out")
    assert f"{tmp_path / 'out'} contains other token shards: {message}. Choose another --out" in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_shards_of_changed_text_are_never_overwritten(corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "out")
    content = (corpus / "03.txt").read_bytes()
    (corpus / "03.txt").write_bytes(content.swapcase())
    with pytest.raises(DataError, match=r"03\.txt has changed since"):
        prepare(config(corpus), tmp_path / "out")
    (corpus / "new.txt").write_text("new")
    with pytest.raises(DataError, match="they were prepared from 40 sources, not 41"):
        prepare(config(corpus), tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no time of the last change")
def test_changed_text_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("some text")
    time = file.stat().st_mtime_ns
    prepare(config(file), tmp_path / "out")
    first = prepare_cached(config(file), tmp_path / "cache")
    file.write_text("SOME TEXT")
    os.utime(file, ns=(time, time))
    assert not prepare_cached(config(file), tmp_path / "cache").already_prepared
    assert prepare_cached(config(file), tmp_path / "cache").fingerprint != first.fingerprint
    with pytest.raises(DataError, match=r"a\.txt has changed since"):
        prepare(config(file), tmp_path / "out")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local dataset folder, named hf:./set from the current folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "old"}\n{"text": "one more"}\n')
    return tmp_path / "set"


def test_changed_text_of_a_local_dataset_folder_is_noticed(dataset: Path, tmp_path: Path) -> None:
    prepare(config("hf:./set"), tmp_path / "out")
    prepare_cached(config("hf:./set"), tmp_path / "cache")
    assert prepare_cached(config("hf:./set"), tmp_path / "cache").already_prepared
    os.utime(dataset / "train.jsonl", (1, 1))
    assert prepare(config("hf:./set"), tmp_path / "out").already_prepared
    (dataset / "train.jsonl").write_text('{"text": "new"}\n{"text": "one more"}\n')
    changed = prepare_cached(config("hf:./set"), tmp_path / "cache")
    assert not changed.already_prepared
    assert "new" in text(changed) + text(changed, "val")
    with pytest.raises(DataError, match=r"hf:\./set has changed since"):
        prepare(config("hf:./set"), tmp_path / "out")


def test_datasets_of_the_same_name_in_two_folders_differ(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dataset / "set").mkdir()
    here = DatasetSpec(config("hf:set")).cache_key
    monkeypatch.chdir(dataset)
    assert DatasetSpec(config("hf:set")).cache_key != here


def test_refresh_prepares_again_what_was_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["old", "old, too"]
    monkeypatch.setattr(sources, "_dataset_rows", lambda *_: [{"text": row} for row in rows])
    data = config("hf:some/name", tokenizer="char")
    calls = partial(prepare, data, tmp_path / "out"), partial(prepare_cached, data, tmp_path)
    for call in calls:
        call()
    rows[:] = ["new", "new, too", "newest"]
    for call in calls:
        assert call().already_prepared
        refreshed = call(refresh=True)
        refreshed.verify()
        assert not refreshed.already_prepared
        assert "old" not in text(refreshed) + text(refreshed, "val")
        assert call().fingerprint == refreshed.fingerprint
        assert [path.name for path in refreshed.path.parent.iterdir() if path.name.startswith(".")] == []
    prepare(config("hf:some/name", val_fraction=0.3), tmp_path / "out", refresh=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(DataError, match="mine exists and is not a folder of token shards"):
        prepare(data, tmp_path / "mine", refresh=True)
    with pytest.raises(DataError, match=r"out is a folder of token shards, not text\. Omit --refresh"):
        prepare_cached(config(tmp_path / "out"), tmp_path, refresh=True)


def test_only_the_times_of_a_file_may_change_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 1_000)

    def touch(what: str, done: int, total: int | None) -> None:
        (tmp_path / "a.txt").chmod(0o600)
        os.utime(tmp_path / "a.txt", (done, done))

    prepare(config(tmp_path / "a.txt"), tmp_path / "out", progress=touch).verify()


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 1_000)

    def modify(what: str, done: int, total: int | None) -> None:
        if what == "encoding":
            (tmp_path / "a.txt").write_text("longer " * 2_000)

    with pytest.raises(DataError, match=r"a\.txt changed while it was read"):
        prepare(config(tmp_path / "a.txt"), tmp_path / "out", progress=modify)
    assert not (tmp_path / "out").exists()


def test_the_cache_distinguishes_text_and_options(corpus: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = prepare_cached(config(corpus), cache)
    again = prepare_cached(config(corpus, workers=1, order="offsets", stride=3), cache)
    assert (first.already_prepared, again.already_prepared) == (False, True)
    assert again.path == first.path
    assert prepare_cached(config(corpus, val_fraction=0.3), cache).path != first.path
    (corpus / "00.txt").write_text("changed")
    changed = prepare_cached(config(corpus), cache)
    assert not changed.already_prepared
    assert sorted(path.name for path in cache.iterdir()) == ["prepared"]
    assert all(not path.name.startswith(".") for path in (cache / "prepared").iterdir())


def test_the_cache_keeps_standard_input_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for data in (b"some text", b"some text", b"other text"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        paths.append(prepare_cached(config("-"), tmp_path).path)
    assert paths[0] == paths[1] != paths[2]


def test_the_format_on_disk_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache keys and meta.json equal those of version 0.1.0, so that its prepared caches stay valid."""
    golden = {
        "byte": (
            "83819ea0a1322e5465dfe725e2ebeefb",
            "c052e0a298ba0a5d20e266b3b33fd1d48b250d359fe196f98ced6b26ee3fea4a",
        ),
        "char": (
            "2805732eff68c1f4c2653731ef668e21",
            "f6675ed874c058787ab41bd1c1b16febd683f33d1903150acaa89d5e5060e201",
        ),
        "gpt2": (
            "d2c5ebc787435a3f88112a86c214343c",
            "fbb2b774f4ed48400076ba702b2fea9e851f18ca8ecfe9f4dcb39ee935d974d8",
        ),
    }
    content = "It's a fine day, isn't it? Schöne Grüße! 1,234\n" * 40
    for tokenizer, expected in golden.items():
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        folder = prepare_cached(config("-", tokenizer=tokenizer), tmp_path).path
        assert (folder.name, hashlib.sha256((folder / "meta.json").read_bytes()).hexdigest()) == expected
