"""Text becomes token shards, completely or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from prepared import config, contents, ids, text

from tokenloom.config import DataConfig
from tokenloom.data import prepare as prepare_module
from tokenloom.data import shard_jobs
from tokenloom.data.prepare import prepare, prepare_cached
from tokenloom.data.shards import Shards
from tokenloom.data.tokenizers import ENDOFTEXT, load_tokenizer, make_tokenizer
from tokenloom.errors import DataError, TokenizerError


def test_the_verdict_gives_the_books_counts(texts_folder: Path, tmp_path: Path) -> None:
    shards = prepare(config(texts_folder / "the-verdict.txt", tokenizer="gpt2"), tmp_path / "out")
    assert (shards.train.n_tokens, shards.val.n_tokens) == (4_612, 534)
    assert (shards.train.n_bytes, shards.val.n_bytes) == (18_431, 20_479 - 18_431)
    assert shards.train.document_ends().tolist() == [4_612]
    shards.verify()


def test_a_named_corpus_is_prepared_by_its_name(texts_folder: Path, tmp_path: Path) -> None:
    assert os.environ["TOKENLOOM_DATA"] == str(texts_folder)
    shards = prepare(config("tinyshakespeare", tokenizer="char"), tmp_path / "out")
    assert shards.train.n_tokens == int(1_115_394 * 0.9)
    assert shards.val.n_tokens == 1_115_394 - int(1_115_394 * 0.9)


def test_end_of_text_tokens_are_only_between_documents(corpus: Path, tmp_path: Path, small_shards: None) -> None:
    (corpus / "empty.txt").touch()
    shards = prepare(config(corpus), tmp_path / "out")
    documents = [file.read_text(encoding="utf-8") for file in sorted(corpus.iterdir()) if file.name != "empty.txt"]
    train, val = text(shards).split(ENDOFTEXT), text(shards, "val").split(ENDOFTEXT)
    assert sorted(train + val) == sorted(documents)
    assert train == [document for document in documents if document in train]
    assert val
    for split, parts in {"train": train, "val": val}.items():
        counts = getattr(shards, split)
        assert (counts.n_documents, counts.n_bytes) == (len(parts), sum(map(len, parts)))
        ends = np.cumsum([len(part) + 1 for part in parts])
        ends[-1] -= 1
        assert counts.document_ends().tolist() == ends.tolist()


def test_a_long_text_in_many_shards_gives_the_tokens_of_the_whole_text(shakespeare: str, tmp_path: Path) -> None:
    line = " ".join(shakespeare.split()) * 3
    (tmp_path / "line.txt").write_text(line, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_jobs, "SHARD_BYTES", 300_000)
        shards = prepare(config(tmp_path / "line.txt", tokenizer="gpt2", val_fraction=0.2), tmp_path / "out")
    gpt2, boundary = load_tokenizer("gpt2"), int(len(line) * (1 - 0.2))
    assert np.array_equal(shards.train.read(0, len(shards.train)), gpt2.encode_array(line[:boundary]))
    assert np.array_equal(shards.val.read(0, len(shards.val)), gpt2.encode_array(line[boundary:]))


def test_one_file_and_many_give_the_same_documents(corpus: Path, tmp_path: Path) -> None:
    documents = [file.read_text(encoding="utf-8") for file in sorted(corpus.iterdir())]
    lines = "\n".join(json.dumps({"body": document}) for document in documents)
    (tmp_path / "all.jsonl").write_text(lines)
    one = prepare(config(tmp_path / "all.jsonl", text_key="body"), tmp_path / "one")
    many = prepare(config(corpus), tmp_path / "many")
    assert one.fingerprint == many.fingerprint
    assert one.meta.sources != many.meta.sources


def test_documents_stay_in_their_split_when_files_are_added(corpus: Path, tmp_path: Path) -> None:
    before = set(text(prepare(config(corpus), tmp_path / "before"), "val").split(ENDOFTEXT))
    for i in range(40):
        (corpus / f"added {i}.txt").write_text(f"added {i}")
    after = set(text(prepare(config(corpus), tmp_path / "after"), "val").split(ENDOFTEXT))
    assert before
    assert before == {document for document in after if not document.startswith("added")}


def test_a_tokenizer_is_trained_on_training_text_only(corpus: Path, tmp_path: Path) -> None:
    plain = prepare(config(corpus), tmp_path / "plain")
    learned = prepare(config(corpus, tokenizer="char"), tmp_path / "learned")
    expected = make_tokenizer("char", text(plain).split(ENDOFTEXT))
    assert learned.tokenizer.fingerprint == expected.fingerprint
    (tmp_path / "one.txt").write_text("a" * 90 + "z" * 10)
    single = prepare(config(tmp_path / "one.txt", tokenizer="char"), tmp_path / "single")
    assert single.tokenizer.fingerprint == make_tokenizer("char", ["a"]).fingerprint
    assert text(single, "val") == "z" * 10


def test_a_tokenizer_is_trained_on_a_bounded_part_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "TOKENIZER_TRAINING_CHARACTERS", 100)
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 5_000 + name.upper())
    shards = prepare(config(*sorted(tmp_path.glob("*.txt")), tokenizer="char", val_fraction=0), tmp_path / "out")
    assert shards.tokenizer.fingerprint == make_tokenizer("char", ["abc"]).fingerprint


@pytest.mark.parametrize("choice", ["token", "text", "refuse"])
def test_end_of_text_inside_a_text_is_handled_as_requested(choice: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"one{ENDOFTEXT}two")
    data = config(tmp_path / "a.txt", endoftext=choice, val_fraction=0)
    if choice == "refuse":
        with pytest.raises(DataError, match=r"a\.txt contains <\|endoftext\|>\. Remove it, or pass --data\.endoftext"):
            prepare(data, tmp_path / "out")
        return
    shards = prepare(data, tmp_path / "out")
    assert text(shards) == f"one{ENDOFTEXT}two"
    assert (256 in ids(shards.train)) == (choice == "token")
    assert shards.train.n_bytes == (6 if choice == "token" else 6 + len(ENDOFTEXT))


def test_replaced_bytes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\xffb\xfe\xfec")
    shards = prepare(config(tmp_path / "a.txt", encoding_errors="replace", val_fraction=0), tmp_path / "out")
    assert text(shards) == "a\ufffdb\ufffd\ufffdc"
    assert shards.meta.replaced == 3


def test_meta_records_the_size_and_hash_of_every_source(corpus: Path, tmp_path: Path) -> None:
    shards = prepare(config(corpus), tmp_path / "out")
    for source in shards.meta.sources:
        assert source.sha256 == hashlib.sha256(Path(source.name).read_bytes()).hexdigest()
        assert source.bytes == Path(source.name).stat().st_size
    assert len(shards.meta.sources) == 40


def test_an_unrelated_folder_or_file_is_never_overwritten(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (corpus, tmp_path / "file"):
        with pytest.raises(DataError, match=r"exists and is not a folder of token shards\. Choose another --out"):
            prepare(config(corpus), out)
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list(corpus.iterdir())) == 40


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs on this platform")
def test_nothing_beside_the_output_folder_is_opened(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "out"
    out.parent.mkdir()
    os.mkfifo(out.parent / "fifo")  # opening it would block forever
    (out.parent / "broken").symlink_to("nowhere")
    (out.parent / "unreadable").touch(mode=0)
    assert prepare(config(corpus), out).path == out


def test_the_output_folder_can_be_empty_or_missing_with_its_parents(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "not" / "yet" / "there"):
        assert prepare(config(corpus), out).path == out


def test_corrupt_shards_are_refused_and_not_replaced(corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "out")
    (tmp_path / "out/train/tokens-00000.bin").unlink()
    with pytest.raises(DataError, match="are corrupt"):
        prepare(config(corpus), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "all documents are empty"),
        (b"\xef\xbb\xbf", {}, "all documents are empty"),
        (b"", {"val_fraction": 0}, "all documents are empty"),
        (b"ab\xff", {}, "byte 0xff at offset 2"),
        (b"ab", {"tokenizer": "gtp2"}, "Did you mean gpt2?"),
        (b"ab", {"tokenizer": "bpe:5"}, "too small"),
    ],
)
def test_invalid_input_leaves_no_files_behind(content: bytes, options: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises((DataError, TokenizerError)) as caught:
        prepare(config(tmp_path / "a.txt", **options), tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_output_folder_that_cannot_be_written_is_named(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write token shards to"):
        prepare(config(corpus), tmp_path / "file" / "out")


def test_progress_reports_activity_and_bytes(corpus: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    prepare(config(corpus, tokenizer="char"), tmp_path / "out", progress=lambda *step: calls.append(step))
    total = sum(file.stat().st_size for file in corpus.iterdir())
    assert [what for what, *_ in calls if what == "encoding"]
    assert {"scanning the text", "training the tokenizer", "encoding"} == {what for what, *_ in calls}
    encoding_steps = [done for what, done, _ in calls if what == "encoding"]
    assert encoding_steps == sorted(encoding_steps)
    assert encoding_steps[-1] == total
    assert {of for *_, of in calls} == {total}


def test_standard_input_is_a_single_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def feed(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    feed(b"ten letter" * 10)
    shards = prepare(config("-"), tmp_path / "out")
    assert (text(shards), text(shards, "val")) == ("ten letter" * 9, "ten letter")
    feed(b"ten letter" * 10)
    assert prepare(config("-"), tmp_path / "out").already_prepared
    feed(b"ten LETTER" * 10)
    with pytest.raises(DataError, match="standard input has changed since"):
        prepare(config("-"), tmp_path / "out")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(DataError, match="no standard input"):
        prepare(config("-"), tmp_path / "out")


def test_a_corrupt_cache_entry_is_prepared_again(corpus: Path, tmp_path: Path) -> None:
    first = prepare_cached(config(corpus), tmp_path / "cache")
    expected = contents(first.path)
    (first.path / "train/tokens-00000.bin").write_bytes(b"")
    assert not prepare_cached(config(corpus), tmp_path / "cache").already_prepared
    assert contents(first.path) == expected


def test_the_cache_folder_can_be_set_in_the_environment(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "here"))
    assert prepare_cached(config(corpus)).path.is_relative_to(tmp_path / "here")


def test_a_shards_folder_as_source_is_opened_directly(corpus: Path, tmp_path: Path) -> None:
    made = prepare(config(corpus), tmp_path / "out")
    for tokenizer in ("byte", DataConfig().tokenizer):
        opened = prepare_cached(config(tmp_path / "out", tokenizer=tokenizer), tmp_path / "cache")
        assert (opened.path, opened.fingerprint, opened.already_prepared) == (made.path, made.fingerprint, True)
    for other in ("gpt2", "char", "bpe:300"):
        with pytest.raises(DataError, match=f"were prepared with tokenizer byte, not {other}"):
            prepare_cached(config(tmp_path / "out", tokenizer=other), tmp_path / "cache")
    with pytest.raises(DataError, match="cannot be combined with other sources"):
        prepare_cached(config(tmp_path / "out", corpus), tmp_path / "cache")
    with pytest.raises(DataError, match="is already a folder of token shards"):
        prepare(config(tmp_path / "out"), tmp_path / "another")


def test_concurrent_calls_prepare_once(corpus: Path, tmp_path: Path) -> None:
    results: list[Shards] = []
    call = threading.Thread(target=lambda: results.append(prepare(config(corpus), tmp_path / "out")))
    call.start()
    results.append(prepare(config(corpus), tmp_path / "out"))
    call.join()
    assert sorted(result.already_prepared for result in results) == [False, True]
