"""An interrupted preparation is resumed from its finished shards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prepared import config, contents, text

from tokenloom.data import prepare as prepare_module
from tokenloom.data import shard_jobs
from tokenloom.data.prepare import prepare
from tokenloom.data.shards_meta import FINISHED_FOLDER

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
    """A process that called `prepare` and received a signal after some shards were finished."""
    call = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(corpus), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    finished = out.with_name(f".{out.name}.partial") / FINISHED_FOLDER
    deadline = time.monotonic() + 60
    while len(list(finished.glob("*.json"))) < 3:
        assert call.poll() is None, call.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(call.pid).children(recursive=True)
    call.send_signal(number)
    call.wait(30)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    return call


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this platform")
def test_a_killed_call_is_resumed_from_its_finished_shards(
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
def test_ctrl_c_stops_every_process_and_keeps_finished_shards(long_corpus: Path, tmp_path: Path) -> None:
    call = interrupted(long_corpus, tmp_path / "out", signal.SIGINT)
    _, stderr = call.communicate()
    partial = tmp_path / ".out.partial"
    assert stderr.splitlines()[-1].startswith(f"KeyboardInterrupt: interrupted. Finished shards are kept in {partial}:")
    assert stderr.count("Traceback") == 1  # of the parent; the command line suppresses it
    assert not (tmp_path / "out").exists()
    assert list((partial / FINISHED_FOLDER).glob("*.json"))


def test_an_interruption_before_the_first_shard_leaves_no_files_behind(corpus: Path, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config(corpus), tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def partial_folder(corpus: Path, out: Path) -> Path:
    """The partial folder of a call that was killed after its last shard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_module, "finish_shards", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config(corpus, workers=1), out)
    return out.with_name(f".{out.name}.partial")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_finished_shards_of_other_text_are_not_reused(corpus: Path, tmp_path: Path, small_shards: None) -> None:
    partial_folder(corpus, tmp_path / "out")
    (corpus / "00.txt").write_text("changed")
    shards = prepare(config(corpus), tmp_path / "out")
    assert "changed" in text(shards) + text(shards, "val")
    assert contents(tmp_path / "out") == contents(prepare(config(corpus), tmp_path / "fresh").path)


@pytest.mark.parametrize("pattern", ["*.bin", "*.idx"])
@pytest.mark.parametrize("content", [b"", b"12345678"])
def test_incomplete_shards_are_not_reused(
    pattern: str, content: bytes, corpus: Path, tmp_path: Path, small_shards: None
) -> None:
    partial = partial_folder(corpus, tmp_path / "out")
    for file in (partial / "train").glob(pattern):
        file.write_bytes(content)
    (partial / "finished" / "val-00000.json").write_bytes(b"{")
    (partial / "train" / "tokens-00000.999.tmp").touch()
    prepare(config(corpus), tmp_path / "out").verify()
    assert contents(tmp_path / "out") == contents(prepare(config(corpus), tmp_path / "fresh").path)
