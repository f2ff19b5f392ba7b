"""Interrupted writes: full disks, signals and killed processes leave the old checkpoint or the new one."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
from checkpoints import STATE, NamelessTokenizer, contents, save, tiny_gpt2

from tokenloom import storage
from tokenloom.errors import CheckpointError
from tokenloom.weights import checkpoint as checkpoint_module
from tokenloom.weights.checkpoint import find_corruption, newest_checkpoint, save_checkpoint


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (checkpoint_module, "write_folder"),
        (checkpoint_module, "_write_json"),
        (checkpoint_module, "sha256_of"),
        (storage, "fsync"),
        (storage, "replace_folder"),
    ],
)
@pytest.mark.parametrize("same_name", [True, False])
@pytest.mark.parametrize(("failure", "error"), [(full_disk, CheckpointError), (interrupted, KeyboardInterrupt)])
def test_a_write_that_fails_leaves_the_old_checkpoint_intact_and_no_temporary_files(
    tmp_path, monkeypatch, module, function, same_name, failure, error
):
    before = contents(save(tmp_path, 1).path)
    monkeypatch.setattr(module, function, failure)
    with pytest.raises(error):
        save(tmp_path, 1 if same_name else 2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert contents(tmp_path / "step-00000001") == before
    assert newest_checkpoint(tmp_path)[0].step == 1
    save(tmp_path, 2)
    assert newest_checkpoint(tmp_path)[0].step == 2


def test_an_interruption_in_the_middle_of_the_tokenizer_leaves_nothing(tmp_path):
    class Interrupting(NamelessTokenizer):
        def save(self, folder):
            super().save(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 1, tiny_gpt2(), Interrupting(), state=STATE)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(CheckpointError) as refused:
        save(tmp_path)
    assert str(refused.value) == (
        f"could not write {tmp_path / 'step-00001000'}: No space left on device. "
        "Free some space or choose another --out; earlier checkpoints are untouched."
    )


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="a limit on the size of files needs POSIX")
def test_a_disk_that_is_really_full_is_reported_the_same_way(tmp_path):
    """safetensors reports a failed write as an error of its own; a limit on file size stands in for a full disk."""
    script = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from checkpoints import save
from tokenloom.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    save(Path(sys.argv[1]))
except CheckpointError as error:
    sys.exit(0 if "could not write" in str(error) else 3)
sys.exit(4)
"""
    arguments = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_reported_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not write"):
        save(tmp_path / "file" / "checkpoints")


def test_temporary_files_of_a_killed_process_are_ignored_and_removed(tmp_path):
    unfinished = tmp_path / ".step-00001000.tmp"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_text("half")
    assert newest_checkpoint(tmp_path) == (None, [])
    saved = save(tmp_path)
    assert not unfinished.exists()
    assert find_corruption(saved.path) is None


KILLED_WRITER = """
import json, os, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[2])
from checkpoints import save, tiny_gpt2
from tokenloom import storage
from tokenloom.weights.checkpoint import newest_checkpoint

CALLS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.dlopen", "ctypes.dlsym")
old, new = tiny_gpt2(), tiny_gpt2(seed=1)

def write_and_die(folder, step, moment):
    calls = 0
    def watch(event, arguments):
        nonlocal calls
        calls += event in CALLS
        if calls > moment:
            os._exit(9)
    sys.addaudithook(watch)
    save(folder, step, new)
    os._exit(0)

def kill(step):
    for moment in range(1000):
        folder = Path(sys.argv[1]) / f"{step}-{storage._exchange is exchange}" / str(moment)
        save(folder, 1, old)
        if os.fork() == 0:
            write_and_die(folder, step, moment)
        died = os.waitstatus_to_exitcode(os.wait()[1]) == 9
        newest, notices = newest_checkpoint(folder)
        assert notices == [] and newest is not None
        written = [torch.equal(newest.model().wte.weight, model.wte.weight) for model in (old, new)]
        assert sum(written) == 1
        yield written.index(True)
        if not died:
            break

exchange, found = storage._exchange, {}
for storage._exchange in (exchange, lambda a, b: False):
    for step in (1, 2):
        found[f"{step}-{storage._exchange is exchange}"] = list(kill(step))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def killed_writers(tmp_path_factory):
    """Whether the new checkpoint was found after each death, for each step and way to replace a folder."""
    folder = tmp_path_factory.mktemp("killed")
    arguments = [sys.executable, "-c", KILLED_WRITER, str(folder), str(Path(__file__).parent)]
    finished = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for every moment")
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("step", [1, 2])
def test_a_process_killed_at_any_moment_leaves_a_valid_checkpoint(killed_writers, step, exchange):
    """Processes die before the first, the second … of their file system calls, adding step 2 or replacing step 1."""
    is_new = killed_writers[f"{step}-{exchange}"]
    assert is_new == sorted(is_new)
    assert len(is_new) > 20
    assert (is_new[0], is_new[-1]) == (0, 1)


def test_an_interrupted_replacement_is_recovered_when_checkpoints_are_listed(tmp_path):
    """Where folders cannot be exchanged, a crash may leave the old one under its temporary name."""
    save(tmp_path, 1)
    saved = save(tmp_path, 2)
    saved.path.rename(tmp_path / ".step-00000002.replaced")
    assert newest_checkpoint(tmp_path)[0].path == saved.path
