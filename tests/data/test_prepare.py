"""Preparing text: whole or not at all, the same again, and picked up after a kill."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tokenloom.config import DataConfig
from tokenloom.data import prepare as prepare_module
from tokenloom.data import shard_jobs, worker_pool
from tokenloom.data.prepare import prepare, prepare_cached
from tokenloom.data.shards import Shards, Split, open_shards
from tokenloom.data.tokenizers import ENDOFTEXT, load_tokenizer, make_tokenizer
from tokenloom.errors import DataError, TokenizerError


def config(*sources: str | Path, **options: object) -> DataConfig:
    return DataConfig.model_validate({"sources": tuple(map(str, sources)), "tokenizer": "byte", **options})


def ids(split: Split) -> list[int]:
    return split.read(0, len(split)).tolist()


def text(shards: Shards, split: str = "train") -> str:
    return shards.tokenizer.decode(ids(getattr(shards, split)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Forty small documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02d}.txt").write_text(f"document {i} says {'word ' * (i % 7)}\n", encoding="utf-8")
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_jobs, "SHARD_BYTES", 100)


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


def test_ends_of_text_stand_between_documents_only(corpus: Path, tmp_path: Path, small_shards: None) -> None:
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


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe:300", "char", "byte"])
def test_shards_and_processes_do_not_change_the_tokens(
    tokenizer: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(config(corpus, tokenizer=tokenizer, workers=1), tmp_path / "whole")
    monkeypatch.setattr(shard_jobs, "SHARD_BYTES", 100)
    many = prepare(config(corpus, tokenizer=tokenizer, workers=2), tmp_path / "many")
    prepare(config(corpus, tokenizer=tokenizer, workers=1), tmp_path / "again")
    assert len(many.meta.splits["train"].shards) > 5
    assert (ids(many.train), ids(many.val)) == (ids(whole.train), ids(whole.val))
    assert many.train.document_ends().tolist() == whole.train.document_ends().tolist()
    assert contents(tmp_path / "many") == contents(tmp_path / "again")
    many.verify()


def test_one_long_text_in_many_shards_is_encoded_as_a_whole(shakespeare: str, tmp_path: Path) -> None:
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


def test_documents_stay_on_their_side_when_files_are_added(corpus: Path, tmp_path: Path) -> None:
    before = set(text(prepare(config(corpus), tmp_path / "before"), "val").split(ENDOFTEXT))
    for i in range(40):
        (corpus / f"added {i}.txt").write_text(f"added {i}")
    after = set(text(prepare(config(corpus), tmp_path / "after"), "val").split(ENDOFTEXT))
    assert before
    assert before == {document for document in after if not document.startswith("added")}


def test_a_learned_tokenizer_sees_training_text_only(corpus: Path, tmp_path: Path) -> None:
    plain = prepare(config(corpus), tmp_path / "plain")
    learned = prepare(config(corpus, tokenizer="char"), tmp_path / "learned")
    expected = make_tokenizer("char", text(plain).split(ENDOFTEXT))
    assert learned.tokenizer.fingerprint == expected.fingerprint
    (tmp_path / "one.txt").write_text("a" * 90 + "z" * 10)
    single = prepare(config(tmp_path / "one.txt", tokenizer="char"), tmp_path / "single")
    assert single.tokenizer.fingerprint == make_tokenizer("char", ["a"]).fingerprint
    assert text(single, "val") == "z" * 10


def test_a_tokenizer_learns_from_a_bounded_part_of_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "TOKENIZER_TRAINING_CHARACTERS", 100)
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 5_000 + name.upper())
    shards = prepare(config(*sorted(tmp_path.glob("*.txt")), tokenizer="char", val_fraction=0), tmp_path / "out")
    assert shards.tokenizer.fingerprint == make_tokenizer("char", ["abc"]).fingerprint


@pytest.mark.parametrize("choice", ["token", "text", "refuse"])
def test_a_written_end_of_text_is_what_the_user_chose(choice: str, tmp_path: Path) -> None:
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


def test_repaired_bytes_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\xffb\xfe\xfec")
    shards = prepare(config(tmp_path / "a.txt", encoding_errors="replace", val_fraction=0), tmp_path / "out")
    assert text(shards) == "a\ufffdb\ufffd\ufffdc"
    assert shards.meta.replaced == 3


def test_meta_tells_the_sources_by_hash(corpus: Path, tmp_path: Path) -> None:
    shards = prepare(config(corpus), tmp_path / "out")
    for source in shards.meta.sources:
        assert source.sha256 == hashlib.sha256(Path(source.name).read_bytes()).hexdigest()
        assert source.bytes == Path(source.name).stat().st_size
    assert len(shards.meta.sources) == 40


def test_the_same_call_again_does_nothing_and_says_so(corpus: Path, tmp_path: Path) -> None:
    first = prepare(config(corpus, tokenizer="bpe:300"), tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")}
    second = prepare(config(corpus, tokenizer="bpe:300", workers=1), tmp_path / "out")
    assert (first.already_prepared, second.already_prepared) == (False, True)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*")} == before
    assert second.fingerprint == first.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]


def test_touched_or_copied_text_is_still_the_same(corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "out")
    os.utime(corpus / "03.txt", (1, 1))
    assert prepare(config(corpus), tmp_path / "out").already_prepared
    corpus.rename(tmp_path / "moved")
    assert prepare(config(tmp_path / "moved"), tmp_path / "out").already_prepared


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizer": "gpt2"}, "they were prepared with tokenizer 'byte', not 'gpt2'"),
        ({"val_fraction": 0.2}, "they were prepared with val_fraction 0.1, not 0.2"),
        ({"encoding_errors": "replace"}, "they were prepared with encoding_errors 'strict', not 'replace'"),
        ({"endoftext": "refuse"}, "they were prepared with endoftext 'token', not 'refuse'"),
    ],
)
def test_other_shards_are_never_overwritten(change: dict, says: str, corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError) as caught:
        prepare(config(corpus, **change), tmp_path / "out")
    assert f"{tmp_path / 'out'} contains other token shards: {says}. Choose another --out" in str(caught.value)
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


def test_a_folder_or_file_of_something_else_is_never_overwritten(corpus: Path, tmp_path: Path) -> None:
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


def test_an_empty_folder_may_be_filled_and_a_deep_one_is_made(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "not" / "yet" / "there"):
        assert prepare(config(corpus), out).path == out


def test_damaged_shards_are_refused_not_redone(corpus: Path, tmp_path: Path) -> None:
    prepare(config(corpus), tmp_path / "out")
    (tmp_path / "out/train/tokens-00000.bin").unlink()
    with pytest.raises(DataError, match="are corrupt"):
        prepare(config(corpus), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (b"", {}, "all documents are empty"),
        (b"\xef\xbb\xbf", {}, "all documents are empty"),
        (b"", {"val_fraction": 0}, "all documents are empty"),
        (b"ab\xff", {}, "byte 0xff at offset 2"),
        (b"ab", {"tokenizer": "gtp2"}, "Did you mean gpt2?"),
        (b"ab", {"tokenizer": "bpe:5"}, "too small"),
    ],
)
def test_bad_input_leaves_nothing_behind(content: bytes, options: dict, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises((DataError, TokenizerError)) as caught:
        prepare(config(tmp_path / "a.txt", **options), tmp_path / "out")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_fault_late_in_the_text_leaves_nothing_behind(tmp_path: Path, small_shards: None) -> None:
    (tmp_path / "a.txt").write_text("word " * 1_000)
    (tmp_path / "b.txt").write_text("another " * 1_000)
    (tmp_path / "c.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"c\.txt is not UTF-8"):
        prepare(
            config(*(tmp_path / name for name in ("a.txt", "b.txt", "c.txt")), workers=2, val_fraction=0),
            tmp_path / "out",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_a_folder_that_cannot_be_written_is_named(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write token shards to"):
        prepare(config(corpus), tmp_path / "file" / "out")


def test_text_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 1_000)

    def meddle(what: str, done: int, total: int | None) -> None:
        if what == "encoding":
            (tmp_path / "a.txt").write_text("longer " * 2_000)

    with pytest.raises(DataError, match=r"a\.txt changed while it was read"):
        prepare(config(tmp_path / "a.txt"), tmp_path / "out", progress=meddle)
    assert not (tmp_path / "out").exists()


def test_the_format_on_disk_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache key, fingerprint and meta.json as the first version wrote them: prepared caches stay valid."""
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


def test_progress_tells_what_and_how_far(corpus: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    prepare(config(corpus, tokenizer="char"), tmp_path / "out", progress=lambda *step: told.append(step))
    total = sum(file.stat().st_size for file in corpus.iterdir())
    assert [what for what, *_ in told if what == "encoding"]
    assert {"scanning the text", "training the tokenizer", "encoding"} == {what for what, *_ in told}
    encoding_steps = [done for what, done, _ in told if what == "encoding"]
    assert encoding_steps == sorted(encoding_steps)
    assert encoding_steps[-1] == total
    assert {of for *_, of in told} == {total}


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


def test_the_cache_knows_text_and_options(corpus: Path, tmp_path: Path) -> None:
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


def test_a_damaged_cache_is_made_again(corpus: Path, tmp_path: Path) -> None:
    first = prepare_cached(config(corpus), tmp_path / "cache")
    expected = contents(first.path)
    (first.path / "train/tokens-00000.bin").write_bytes(b"")
    assert not prepare_cached(config(corpus), tmp_path / "cache").already_prepared
    assert contents(first.path) == expected


def test_the_cache_is_where_the_environment_says(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "here"))
    assert prepare_cached(config(corpus)).path.is_relative_to(tmp_path / "here")


def test_shards_as_a_source_are_opened_as_they_stand(corpus: Path, tmp_path: Path) -> None:
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


def test_two_calls_at_once_prepare_once(corpus: Path, tmp_path: Path) -> None:
    results: list[Shards] = []
    call = threading.Thread(target=lambda: results.append(prepare(config(corpus), tmp_path / "out")))
    call.start()
    results.append(prepare(config(corpus), tmp_path / "out"))
    call.join()
    assert sorted(result.already_prepared for result in results) == [False, True]


SLOW = """
import signal, sys, time
from tokenloom.config import DataConfig
from tokenloom.data import prepare, shard_jobs
shard_jobs.SHARD_BYTES = 20_000
def wait(what, done, total):
    if what == "encoding" and done == total:
        print("read", flush=True)
        time.sleep(60)
    time.sleep(0.02 if what == "encoding" else 0)
prepare.prepare(DataConfig(sources=(sys.argv[1],), tokenizer="bpe:300", workers=2), sys.argv[2], progress=wait)
"""


@pytest.fixture
def long_corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i}.txt").write_text(f"document {i} has words " * 300)
    return folder


def interrupted(corpus: Path, out: Path, number: signal.Signals) -> subprocess.Popen[str]:
    """A call of `prepare` in a process that got a signal when some shards were finished."""
    call = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(corpus), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    finished = out.with_name(f".{out.name}.partial") / shard_jobs.FINISHED_FOLDER
    give_up = time.monotonic() + 60
    while len(list(finished.glob("*.json"))) < 3:
        assert call.poll() is None, call.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    children = psutil.Process(call.pid).children(recursive=True)
    call.send_signal(number)
    call.wait(30)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    return call


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this platform")
def test_a_killed_call_is_taken_up_where_it_was(
    long_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_jobs, "SHARD_BYTES", 20_000)
    call = interrupted(long_corpus, tmp_path / "out", signal.SIGKILL)
    call.communicate()
    assert not (tmp_path / "out").exists()
    partial = tmp_path / ".out.partial"
    finished = {file.name: file.stat().st_mtime_ns for file in (partial / "train").glob("*.bin")}
    assert len(finished) >= 2
    data = config(long_corpus, tokenizer="bpe:300", workers=2)
    resumed = prepare(data, tmp_path / "out")
    resumed.verify()
    assert {name: (tmp_path / "out/train" / name).stat().st_mtime_ns for name in finished} == finished
    fresh = prepare(data, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert fresh.fingerprint == resumed.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "fresh", "out"]


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_stops_every_process_and_keeps_what_is_finished(long_corpus: Path, tmp_path: Path) -> None:
    call = interrupted(long_corpus, tmp_path / "out", signal.SIGINT)
    _, stderr = call.communicate()
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    assert stderr.count("Traceback") == 1  # the parent's own, which the command line keeps quiet
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".out.partial" / "finished").glob("*.json"))


def test_an_interruption_before_anything_is_finished_leaves_nothing(corpus: Path, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config(corpus), tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def _leave_partial(corpus: Path, out: Path) -> Path:
    """As after a kill: every shard finished, nothing put in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_module, "finish_shards", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(corpus, workers=1), out)
    return out.with_name(f".{out.name}.partial")


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_finished_shards_of_other_text_are_not_reused(corpus: Path, tmp_path: Path, small_shards: None) -> None:
    _leave_partial(corpus, tmp_path / "out")
    (corpus / "00.txt").write_text("changed")
    shards = prepare(config(corpus), tmp_path / "out")
    assert "changed" in text(shards) + text(shards, "val")
    assert contents(tmp_path / "out") == contents(prepare(config(corpus), tmp_path / "fresh").path)


@pytest.mark.parametrize("pattern", ["*.bin", "*.idx"])
@pytest.mark.parametrize("content", [b"", b"12345678"])
def test_half_written_shards_are_not_reused(
    pattern: str, content: bytes, corpus: Path, tmp_path: Path, small_shards: None
) -> None:
    partial = _leave_partial(corpus, tmp_path / "out")
    for file in (partial / "train").glob(pattern):
        file.write_bytes(content)
    (partial / "finished" / "val-00000.json").write_bytes(b"{")
    (partial / "train" / "tokens-00000.999.tmp").touch()
    prepare(config(corpus), tmp_path / "out").verify()
    assert contents(tmp_path / "out") == contents(prepare(config(corpus), tmp_path / "fresh").path)


def test_a_worker_that_dies_is_reported(
    corpus: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "WORKER_CODE", "import sys; sys.exit(7)")
    with pytest.raises(DataError, match="exited with status 7; it may have run out of memory"):
        prepare(config(corpus, workers=2), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_script_without_a_guard_prepares_in_parallel(corpus: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom tokenloom.config import DataConfig\nfrom tokenloom.data import shard_jobs\n"
        "from tokenloom.data.prepare import prepare\nshard_jobs.SHARD_BYTES = 100\n"
        "prepare(DataConfig(sources=(sys.argv[1],), tokenizer='byte', workers=2), sys.argv[2])\nprint('once')\n"
    )
    command = [sys.executable, str(script), str(corpus), str(tmp_path / "out")]
    child = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (child.stdout, child.stderr) == ("once\n", "")
    open_shards(tmp_path / "out").verify()
