"""Processes that torchrun restarts continue their run, and end well if it was finished; other commands do not."""

from pathlib import Path

import pytest
import torch.distributed as dist

from tokenloom import api
from tokenloom.errors import UsageError
from tokenloom.run_folder import RunFolder
from tokenloom.training import restarting

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")

SETTINGS = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "data": {"tokenizer": "byte"},
    "train": {"max_steps": 2, "batch_size": 2, "precision": "fp32", "device": "cpu"},
    "sample": {"max_new_tokens": 0},
}


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rhyme.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall\n" for n in range(40)))
    return path


@pytest.fixture
def torchrun(monkeypatch):
    """Starts "this" process as a torchrun command does, with its store: `torchrun()` is another command."""
    stores = []

    def start():
        stores.append(dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        variables = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(stores[-1].port),
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "TORCHELASTIC_RUN_ID": "job",  # the same of all commands
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        restart()

    def restart():
        number = next(numbers)
        monkeypatch.setattr(restarting, "process_id", lambda: f"process {number}")

    numbers = iter(range(100))
    start.restart = restart
    start()
    return start


def train(text, out=None):
    return api.train(text, out=out, settings=SETTINGS)


def test_a_finished_run_is_not_an_error_for_processes_that_are_restarted(torchrun, text, capfd):
    finished = train(text, "run")
    metrics = RunFolder(Path("run")).metrics_file.read_bytes()
    torchrun.restart()
    assert train(text, "run") == finished
    assert "run was finished before its processes were restarted" in capfd.readouterr().err
    assert api.resume("run", quiet=True) == finished
    assert RunFolder(Path("run")).metrics_file.read_bytes() == metrics


def test_an_unfinished_run_is_continued(torchrun, text):
    train(text)
    for file in (run_folder := RunFolder(Path("runs/rhyme"))).summary_file, run_folder.report_file:
        file.unlink()
    torchrun.restart()
    assert train(text) is not None
    assert [path.name for path in run_folder.path.parent.iterdir()] == ["rhyme"]
    assert run_folder.is_finished()


def test_another_command_with_the_same_rdzv_id_begins_a_new_run(torchrun, text):
    assert train(text).run == "runs/rhyme"
    torchrun()
    assert train(text).run == "runs/rhyme-2"
    torchrun()
    with pytest.raises(UsageError, match="runs/rhyme exists already"):
        train(text, "runs/rhyme")


def test_a_script_can_train_several_runs(torchrun, text):
    assert [train(text).run, train(text).run] == ["runs/rhyme", "runs/rhyme-2"]


def test_a_record_that_cannot_be_read_does_not_prevent_a_run(torchrun, text):
    train(text)
    RunFolder(Path("runs/rhyme")).launch_file.write_text("{")
    torchrun.restart()
    assert train(text).run == "runs/rhyme-2"
