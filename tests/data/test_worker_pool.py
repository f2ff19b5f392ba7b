"""Worker processes give the same shards, and stop with their parent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prepared import config, contents, ids

from tokenloom.data import shard_jobs, worker_pool
from tokenloom.data.prepare import prepare
from tokenloom.data.shards import open_shards
from tokenloom.errors import DataError


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe:300", "char", "byte"])
def test_shard_size_and_worker_count_do_not_change_the_tokens(
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


def test_a_worker_that_exits_is_reported(
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
