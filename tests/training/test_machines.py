"""Several torchrun commands, as on several machines, restart their processes together."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch.distributed as dist

from tokenloom.config_files import dump_toml
from tokenloom.run_folder import RunFolder

SETTINGS = {
    "train": {"max_steps": 6, "batch_size": 4, "save_interval": 3, "precision": "fp32", "device": "cpu"},
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "data": {"tokenizer": "byte"},
    "sample": {"max_new_tokens": 0},
}
# The process of the second machine kills itself once, after a checkpoint. That of the first one takes long to find out
# which process is lost, as if it really was on another machine, so that its torchrun restarts it without a failure.
COMMAND = """
import os, signal
from pathlib import Path
from tokenloom.cli.main import main
from tokenloom.compute.peers import Peers
from tokenloom.training import loop
Peers._is_gone = lambda self, rank: False
original = loop.save
def save_and_die(state, display):
    original(state, display)
    with open(f"counts-{state.world.rank}", "a") as file:
        file.write(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if state.world.rank == 1 and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
loop.save = save_and_die
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_machines_continue_their_run_after_a_process_of_one_was_killed(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"{n} green bottles hanging on the wall\n" for n in range(300)))
    (tmp_path / "settings.toml").write_text(dump_toml(SETTINGS))
    (tmp_path / "command.py").write_text(COMMAND)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "job", "--max-restarts", "3"]
    train = ["command.py", "train", "text.txt", "--config", "settings.toml", "--no-compile", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENLOOM_CACHE": str(tmp_path / "cache")}
    machines = [
        subprocess.Popen(
            [*torchrun, *rendezvous, *train],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        outputs = [machine.communicate(timeout=240) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
            machine.communicate()
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    (summary,) = [json.loads(output) for output, _ in outputs if output]
    assert summary["run"] == "runs/text"
    assert summary["steps"] == 6
    assert [record.step for record in RunFolder(tmp_path / "runs" / "text").metrics()] == [1, 2, 3, 4, 5, 6]
    # Each machine counts its own failures, so the counts of restarts do not tell which processes belong together.
    assert {(tmp_path / f"counts-{rank}").read_text() for rank in range(2)} == {"00", "01"}
