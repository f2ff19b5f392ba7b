"""A run folder: its files are written, read back, and named in an error if they are invalid."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tokenloom.config import Config
from tokenloom.errors import CheckpointError
from tokenloom.metrics import MetricsRecord
from tokenloom.run_folder import JsonlWriter, RunFolder, read_jsonl, truncate_jsonl
from tokenloom.run_records import Baselines, RunIdentity, RunSummary, SampleRecord

IDENTITY = RunIdentity(
    dataset="d", tokenizer="t", model={"family": "gpt2"}, seed=1, order=["windows", None], optimizer="adamw", shards="s"
)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_config(Config())
    folder.write_identity(IDENTITY)
    return folder


def record(step: int, **values: float) -> MetricsRecord:
    return MetricsRecord(step=step, tokens=step * 8, epoch=step / 10, seconds=step / 2, **values)


def test_what_is_written_is_read_back(run):
    baselines = Baselines(xz_bits_per_byte=2.5, val_bytes=10)
    summary = RunSummary(run=str(run.path), steps=3, val_loss=1.5)
    run.write_baselines(baselines)
    run.write_summary(summary)
    assert (run.config(), run.identity(), run.baselines(), run.summary()) == (Config(), IDENTITY, baselines, summary)
    run.remove_results()
    assert run.summary() is None


def test_an_empty_folder_has_nothing(tmp_path):
    run = RunFolder(tmp_path)
    assert (run.identity(), run.baselines(), run.summary(), run.metrics(), run.samples()) == (None, None, None, [], [])
    with pytest.raises(CheckpointError, match="is not a run"):
        run.config()


def test_a_folder_is_a_run_only_with_a_configuration_and_a_valid_identity(run, tmp_path):
    assert run.is_run()
    other = RunFolder(tmp_path / "other")
    other.path.mkdir()
    other.config_file.write_text("[server]\nport = 1\n")  # the settings of another program
    assert not other.is_run()
    other.identity_file.write_text('{"name": "somebody"}')
    assert not other.is_run()


def test_the_run_of_a_checkpoint_is_found(run, tmp_path):
    checkpoint = run.checkpoints / "step-00000001"
    checkpoint.mkdir(parents=True)
    assert RunFolder.of_checkpoint(checkpoint).path.samefile(run.path)
    elsewhere = tmp_path / "checkpoints" / "step-00000001"
    elsewhere.mkdir(parents=True)
    assert RunFolder.of_checkpoint(elsewhere) is None
    assert RunFolder.of_checkpoint(run.path / "exports" / "model") is None


def test_new_runs_get_unused_names(tmp_path):
    for expected in ("book", "book-2", "book-3"):
        run = RunFolder.new(tmp_path, "book")
        assert run.path == tmp_path / expected
        assert run.path.is_dir()


def test_concurrent_new_runs_get_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.new(tmp_path / "runs", "book"), range(40)))
    assert len({run.path for run in runs}) == 40


def test_a_locked_run_is_refused_by_name_and_process(run):
    message = rf"{run.path} is being trained by process {os.getpid()}\. "
    with run.locked():
        with pytest.raises(CheckpointError, match=message), run.locked():
            pass
        with pytest.raises(CheckpointError, match=message):
            run.refuse_if_locked()
    assert not run.lock_file.exists()
    run.refuse_if_locked()
    with run.locked():
        pass


@pytest.mark.parametrize("content", ["", "1", "not a number"])
def test_the_lock_file_of_a_killed_process_has_no_effect(tmp_path, content):
    run = RunFolder(tmp_path)
    run.lock_file.write_text(content)
    assert run.is_unused()
    with run.locked():
        assert run.lock_file.read_text() == str(os.getpid())


def test_a_folder_to_which_nothing_was_written_is_removed(tmp_path):
    run = RunFolder(tmp_path / "runs" / "book")
    with run.locked():
        assert run.is_unused()
    assert not run.path.exists()
    with run.locked():
        run.write_config(Config())
        assert not run.is_unused()
    assert run.config_file.exists()


def test_the_newest_run_is_found(run, tmp_path):
    assert RunFolder.newest(tmp_path) == run
    assert RunFolder.newest(tmp_path / "nowhere") is None


def test_records_are_appended_and_read_back(run):
    records = [record(1, train_loss=2.0, lr=1e-3), record(2, val_loss=1.9, val_bits_per_byte=0.5)]
    writer = JsonlWriter(run.metrics_file)
    for one in records:
        writer.write(one.to_json())
    writer.close()
    first = json.loads(run.metrics_file.read_text().splitlines()[0])
    assert first == {"step": 1, "tokens": 8, "epoch": 0.1, "seconds": 0.5, "train/loss": 2.0, "lr": 1e-3}
    assert run.metrics() == records


def test_samples_are_read_back(run):
    run.samples_file.write_text('{"step": 1, "tokens": 8, "seed": 0, "prompt": "a", "text": "b\\n"}\n')
    assert run.samples() == [SampleRecord(step=1, tokens=8, seed=0, prompt="a", text="b\n")]


def test_an_incomplete_last_line_is_skipped_and_any_other_is_named(run):
    whole = json.dumps(record(1).to_json())
    run.metrics_file.write_text(f"{whole}\n{whole[:20]}")
    assert run.metrics() == [record(1)]
    run.metrics_file.write_text(f"{whole[:20]}\n{whole}\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 1, is invalid"):
        run.metrics()
    run.metrics_file.write_text('{"step": "three"}\n')
    with pytest.raises(CheckpointError, match="step is 'three', not a number"):
        run.metrics()


def test_an_invalid_json_file_is_named(run):
    for text in ("{", "[]", '{"dataset": 1}'):
        run.identity_file.write_text(text)
        with pytest.raises(CheckpointError, match=r"identity\.json is invalid"):
            run.identity()
        assert not run.is_run()


def test_truncating_keeps_lines_unchanged(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "of a later version": true}\n{"step": 2}\n{"step": 3}\n{"st')
    truncate_jsonl(path, 2)
    assert path.read_text() == '{"step": 1, "of a later version": true}\n{"step": 2}\n'
    truncate_jsonl(path, 0)
    assert path.read_text() == ""
    assert list(read_jsonl(tmp_path / "none.jsonl", dict)) == []
