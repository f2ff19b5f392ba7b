"""Existing shards are reused only if options, tokenizer and sources match."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path

import pytest
from prepared import config, contents

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
