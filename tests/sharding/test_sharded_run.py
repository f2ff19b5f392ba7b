"""Runs with --strategy fsdp: the results of one process, in the same files; they can be resumed by any strategy."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from sharded_processes import ROUNDING, run_processes

from tokenloom.api import evaluate, export, generate
from tokenloom.compute.parallel import World
from tokenloom.config import Config
from tokenloom.data.prepare import prepare
from tokenloom.data.shards import open_shards
from tokenloom.errors import UsageError
from tokenloom.run_folder import RunFolder
from tokenloom.training import run as training_run
from tokenloom.training.run import train_run
from tokenloom.weights.checkpoint import list_checkpoints, open_checkpoint

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")

STEPS = 6
SETTINGS = {
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "tie_embeddings": True},
    "data": {"tokenizer": "byte"},
    "train": {
        "batch_size": 8,
        "micro_batch_size": 2,
        "max_steps": STEPS,
        "save_interval": STEPS // 2,
        "eval_interval": STEPS // 2,
        "eval_batches": 1,
        "keep_checkpoints": 5,
        "log_interval": 1,
        "optimizer": "muon",
        "device": "cpu",
        "precision": "fp32",
    },
    "sample": {"max_new_tokens": 4, "prompts": ["all work"]},
}


def write_text(folder: Path) -> None:
    (folder / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 400)
    prepare(config_of(folder).data, folder / "shards")


def config_of(folder: Path, strategy: str = "auto", **train: object) -> Config:
    return Config.of(
        SETTINGS, {"data": {"sources": [str(folder / "text.txt")]}, "train": {"strategy": strategy, **train}}
    )


def train(folder: Path, name: str, strategy: str, resume: bool = False, **settings: object):
    training_run.peak_flops = lambda _: 1e9  # measuring takes longer than training
    shards = open_shards(folder / "shards")
    return train_run(config_of(folder, strategy, **settings), shards, lambda: RunFolder(folder / name), resume=resume)


def trains_a_run(world: World, folder: Path) -> None:
    train(folder, "sharded", "fsdp")
    if world.is_main:
        copy_before_the_last_step(folder, "resumed")


def resumes_a_run(world: World, folder: Path) -> None:
    train(folder, "resumed", "fsdp", resume=True)


def trains_two_replicas(world: World, folder: Path) -> None:
    train(folder, "replicas", "auto", replicas=2)


def copy_before_the_last_step(folder: Path, name: str) -> None:
    """A copy of the sharded run as if it had been killed before its last step."""
    shutil.copytree(folder / "sharded", folder / name)
    run = RunFolder(folder / name)
    run.remove_results()
    shutil.rmtree(last_checkpoint(run))


def last_checkpoint(run: RunFolder) -> Path:
    return list_checkpoints(run.checkpoints)[-1]


def figures(run: RunFolder) -> list[float]:
    return [value for record in run.metrics() for value in (record.train_loss, record.val_loss) if value is not None]


@pytest.fixture(scope="module")
def runs(two_processes):
    """The run of two processes, and the same of one."""
    train(two_processes, "single", "auto")
    return RunFolder(two_processes / "sharded"), RunFolder(two_processes / "single")


def test_a_sharded_run_has_the_results_of_one_process(runs):
    sharded, single = runs
    assert sharded.config().train.strategy == "fsdp"
    assert sharded.is_finished()
    assert len(figures(single)) == STEPS + 2
    assert figures(sharded) == pytest.approx(figures(single), abs=ROUNDING["muon"])
    assert len(sharded.samples()) == len(single.samples()) > 0
    assert [sample.prompt for sample in sharded.samples()] == [sample.prompt for sample in single.samples()]
    assert sharded.summary().val_loss == pytest.approx(single.summary().val_loss, abs=ROUNDING["muon"])
    names = [[path.name for path in run.checkpoints.iterdir()] for run in runs]
    assert sorted(names[0]) == sorted(names[1])


@pytest.mark.slow
def test_two_replicas_of_two_processes_each_have_the_results_of_one_process(two_processes, runs):
    run_processes(4, two_processes, trains_two_replicas)
    replicas, single = RunFolder(two_processes / "replicas"), runs[1]
    assert replicas.config().train.strategy == "fsdp"
    assert figures(replicas) == pytest.approx(figures(single), abs=ROUNDING["muon"])
    assert replicas.summary().val_loss == pytest.approx(single.summary().val_loss, abs=ROUNDING["muon"])
    assert len(list(last_checkpoint(replicas).glob("model-*-of-00004.safetensors"))) == 4
    train(two_processes, "replicas", "auto", resume=True, max_steps=STEPS + 1)  # by one process
    assert open_checkpoint(last_checkpoint(replicas)).step == STEPS + 1


def test_the_same_processes_resume_a_run_bit_for_bit(two_processes, runs):
    resumed = RunFolder(two_processes / "resumed")
    checkpoints = [open_checkpoint(last_checkpoint(run)) for run in (runs[0], resumed)]
    assert [checkpoint.step for checkpoint in checkpoints] == [STEPS, STEPS]
    first, second = (checkpoint.model().state_dict() | checkpoint.optimizer_tensors() for checkpoint in checkpoints)
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert figures(resumed) == figures(runs[0])


def test_one_process_resumes_a_sharded_run(two_processes, runs):
    copy_before_the_last_step(two_processes, "continued")
    with pytest.raises(UsageError, match="--strategy fsdp needs several processes"):
        train(two_processes, "continued", "fsdp", resume=True)
    train(two_processes, "continued", "auto", resume=True)
    continued = RunFolder(two_processes / "continued")
    assert (last_checkpoint(continued) / "model.safetensors").is_file()
    assert figures(continued) == pytest.approx(figures(runs[0]), abs=ROUNDING["muon"])


def test_a_sharded_run_is_evaluated_exported_and_generates(runs, two_processes, tmp_path):
    sharded, single = (str(run.path) for run in runs)
    text = str(two_processes / "text.txt")
    assert evaluate(sharded, text).loss == pytest.approx(evaluate(single, text).loss, abs=ROUNDING["muon"])
    export(sharded, tmp_path / "exported")
    exported = evaluate(str(tmp_path / "exported"), text)
    assert exported.loss == evaluate(sharded, text).loss
    assert generate(sharded, "all work", max_new_tokens=4)
