"""Resuming with other settings or in another environment: refused, or continued where the data is, and said."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tokenloom import api
from tokenloom.compute.environment import Environment
from tokenloom.config import config_keys, config_sections
from tokenloom.data.batches import Batches
from tokenloom.data.shards import shards_of_run
from tokenloom.errors import CheckpointError, UsageError
from tokenloom.run_folder import RunFolder
from tokenloom.training.display import QuietDisplay
from tokenloom.training.resuming import ANNOUNCED, REFUSED, UNANNOUNCED
from tokenloom.weights.checkpoint import STATE, list_checkpoints, write_manifest

SETTINGS = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "data": {"tokenizer": "byte"},
    "train": {
        "max_steps": 6,
        "batch_size": 8,
        "log_interval": 1,
        "eval_interval": 6,
        "warmup_steps": 2,
        "schedule": "constant",
        "precision": "fp32",
        "device": "cpu",
    },
    "sample": {"max_new_tokens": 0},
}
ALL_STEPS = 12


class Notices(QuietDisplay):
    """Keeps the notices, except those about saved checkpoints."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        if not text.startswith("saved "):
            self.texts.append(text)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run of six steps, and beside it the same run of twelve."""
    folder = tmp_path_factory.mktemp("runs")
    text = folder / "rhyme.txt"
    text.write_text("".join(f"{n} green bottles hanging on the wall, and {n * n} more.\n" for n in range(200)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(folder / "cache"))
        for name, steps in (("stopped", 6), ("whole", ALL_STEPS)):
            settings = SETTINGS | {"train": SETTINGS["train"] | {"max_steps": steps}}
            api.train(text, out=folder / name, settings=settings, quiet=True)
    return folder / "stopped"


@pytest.fixture
def resume(stopped, tmp_path, monkeypatch):
    """Resume a copy of the run up to step 12: returns its folder and the notices about what has changed."""

    def resumed(*, edit=lambda run: None, **settings) -> tuple[RunFolder, list[str]]:
        run, notices = RunFolder(tmp_path / "run"), Notices()
        shutil.copytree(stopped, run.path)
        edit(run)
        monkeypatch.setattr(api, "_display", lambda quiet: notices)
        train = {"max_steps": ALL_STEPS} | settings.pop("train", {})
        api.resume(run.path, settings={"train": train, **settings})
        return run, [text for text in notices.texts if not text.startswith("train.max_steps was 6, now it is 12")]

    return resumed


@pytest.fixture
def finished(stopped, tmp_path, monkeypatch):
    """A copy of the run, and the notices of what resumes it."""
    notices = Notices()
    monkeypatch.setattr(api, "_display", lambda quiet: notices)
    return RunFolder(Path(shutil.copytree(stopped, tmp_path / "run"))), notices.texts


def losses(run: RunFolder) -> dict[int, float | None]:
    return {record.step: record.train_loss for record in run.metrics()}


def edit_state(run: RunFolder, change) -> None:
    """Change the state.json of the newest checkpoint."""
    checkpoint = list_checkpoints(run.checkpoints)[-1]
    state = json.loads((checkpoint / STATE).read_text())
    change(state)
    (checkpoint / STATE).write_text(json.dumps(state))
    (checkpoint / "MANIFEST.json").unlink()
    write_manifest(checkpoint)


def test_a_budget_gives_a_finished_run_at_least_one_more_step(finished):
    run, notices = finished
    api.resume(run.path, budget="31s", started=time.time() - 1000)
    assert "the time allows 7 steps instead of 6, of which 6 are done: the learning rate schedule ends there" in notices
    assert list(losses(run)) == [1, 2, 3, 4, 5, 6, 7]
    assert (run.config().train.max_steps, run.summary().steps) == (7, 7)


def test_max_steps_is_the_upper_limit_of_a_budget_whose_timed_steps_leave_no_trace(finished, stopped):
    run, notices = finished
    api.resume(run.path, budget=31, settings={"train": {"max_steps": ALL_STEPS}})
    assert [notice for notice in notices if "steps" in notice] == [
        "the time allows 12 steps instead of 6, of which 6 are done: the learning rate schedule ends there"
    ]
    assert losses(run) == losses(RunFolder(stopped.parent / "whole"))
    with pytest.raises(CheckpointError, match=r"finished: 12 of 12 steps.*--train.max-steps 24.*--budget 5m"):
        api.resume(run.path, budget=31, settings={"train": {"max_steps": ALL_STEPS}})


def test_processes_that_torchrun_has_restarted_have_no_budget(finished, monkeypatch):
    run, _ = finished
    monkeypatch.setattr(api, "run_before_restart", lambda folders, train: run)
    with pytest.raises(CheckpointError, match="is finished: 6 of 6 steps"):
        api.resume(run.path, budget=31)


def test_every_setting_is_in_one_of_the_tables():
    tables = [*REFUSED, *ANNOUNCED, *UNANNOUNCED]
    assert len(tables) == len(set(tables))
    assert set(tables) <= {*config_keys(), *config_sections()}
    assert {key for key in config_keys() if key not in tables and key.split(".")[0] not in tables} == set()


def test_nothing_is_said_if_nothing_has_changed(resume, stopped):
    run, notices = resume()
    assert notices == []
    assert losses(run) == losses(RunFolder(stopped.parent / "whole"))


def test_another_micro_batch_size_gives_the_same_losses_and_is_said(resume, stopped):
    run, notices = resume(train={"micro_batch_size": 2})
    assert len(notices) == 1
    assert "train.micro_batch_size was none, now it is 2: the result is not bit-identical" in notices[0]
    # fp32 sums in a different order: 1e-7 per operation, amplified over six steps.
    assert losses(run) == pytest.approx(losses(RunFolder(stopped.parent / "whole")), rel=1e-4)


@pytest.mark.parametrize("batch_size", [4, 12])
def test_another_batch_size_uses_no_window_twice_and_skips_none(resume, monkeypatch, batch_size):
    used: list[int] = []
    original = Batches.starts

    def recorded(self: Batches, step: int) -> np.ndarray:
        starts = original(self, step)
        used.extend(starts.tolist())
        return starts

    monkeypatch.setattr(Batches, "starts", recorded)
    monkeypatch.setattr("tokenloom.training.run.estimate_seconds", lambda state: 0.0)  # it computes a gradient as well
    run, notices = resume(train={"batch_size": batch_size})
    (notice,) = notices
    assert f"train.batch_size was 8, now it is {batch_size}: training continues with the next window" in notice
    windows = 48 + 6 * batch_size
    record = run.metrics()[-1]
    assert record.tokens == windows * 16
    # The order of the epoch, without the windows that the first six steps used.
    whole = Batches(shards_of(run).train, block_size=16, batch_size=windows, seed=1337)
    assert used == original(whole, 0).tolist()[48:]
    assert record.epoch == pytest.approx(windows / whole.n_windows)


def shards_of(run: RunFolder):
    shards = shards_of_run(run)
    assert shards is not None
    return shards


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 4}, "the number of threads was 4, now it is"),
        ({"precision": "bf16"}, "the precision was bf16, now it is fp32"),
        ({"device": "cuda (NVIDIA H100)"}, "the device was cuda (NVIDIA H100), now it is cpu"),
        ({"processes": 2}, "the number of processes was 2, now it is 1"),
        ({"torch": "2.0.0"}, "the torch version was 2.0.0, now it is"),
        ({"cpu": "VSX"}, "the CPU capability was VSX, now it is"),
        ({"precision": "bf16", "threads": 4}, "the precision was bf16"),
    ],
)
def test_another_environment_is_said_once_for_each_difference(resume, monkeypatch, change, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    edit = lambda run: edit_state(run, lambda state: state["environment"].update({"threads": 1} | change))  # noqa: E731
    _, notices = resume(edit=edit)
    assert len(notices) == len(change)
    assert notices[0].startswith(said)
    assert all("not bit-identical" in notice for notice in notices)


def test_a_checkpoint_without_an_environment_resumes_and_nothing_is_said(resume):
    _, notices = resume(edit=lambda run: edit_state(run, lambda state: state.pop("environment")))
    assert notices == []


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"n_layer": 2}},
        {"model": {"dropout": 0.5}},
        {"data": {"val_fraction": 0.5}},
        {"data": {"endoftext": "text"}},
        {"data": {"order": "offsets"}},
        {"data": {"stride": 3}},
        {"train": {"seed": 1}},
        {"train": {"optimizer": "adamw"}},
        {"train": {"init_from": "gpt2"}},
    ],
)
def test_a_setting_that_cannot_change_is_refused_by_name(stopped, sections):
    (section,) = sections
    (name,) = sections[section]
    config = (stopped / "config.toml").read_bytes()
    with pytest.raises(CheckpointError, match=rf"its {section}\.{name} was .* now it is .*, and .*start a new run"):
        api.resume(stopped, settings=sections, quiet=True)
    assert (stopped / "config.toml").read_bytes() == config


def test_an_invalid_value_is_refused_as_for_a_new_run(stopped):
    with pytest.raises(UsageError, match="micro_batch_size 5 does not divide"):
        api.resume(stopped, settings={"train": {"micro_batch_size": 5}}, quiet=True)


def test_environments_are_compared_by_what_both_have_recorded():
    now = Environment(device="cpu", precision="fp32", threads=2, processes=1, torch="2.9", cpu="AVX2")
    assert list(now.changes_since({})) == []
    assert list(now.changes_since({"threads": None, "precision": "fp32", "unknown": 3})) == []
    on_gpu = replace(now, device="cuda (X)", threads=None, cpu=None)
    assert list(on_gpu.changes_since(vars(now))) == ["the device was cpu, now it is cuda (X)"]
