"""Runs side by side: their rows, and where their configurations differ."""

import os
import time

from recordings import BASELINES, make_run

from tokenloom.config import Config
from tokenloom.reporting.run_table import find_differences, find_runs, read_row
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunIdentity, RunPlan, RunSummary

CONFIG = Config.of(
    {"data": {"sources": ["a.txt", "b"], "tokenizer": "byte"}, "train": {"max_steps": 100}},
    {"model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 257}},
)
PLAN = RunPlan(
    run="run", data="a.txt b", train_tokens=1, val_tokens=1, windows=1, validation_windows=1, batch_size=1,
    tokens_per_step=1, max_steps=100, first_step=0, parameters=777, flops_per_token=1.0, memory_bytes=1,
    estimated_seconds=12.5, budget_seconds=None, device="cpu", precision="fp32", threads=1, baselines=BASELINES,
)  # fmt: skip


def identified(path, **content) -> RunFolder:
    run = RunFolder(make_run(path, **content))
    run.write_identity(RunIdentity(dataset="d", tokenizer="t", model={}, seed=1, order=[], optimizer="muon"))
    return run


def test_the_runs_of_a_folder_are_listed_by_their_start(tmp_path):
    for name, seconds in (("old", 100), ("new", 300), ("middle", 200)):
        os.utime(identified(tmp_path / name).config_file, (seconds, seconds))
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").write_text("")
    assert list(find_runs(RunFolder(tmp_path))) == ["new", "middle", "old"]
    assert list(find_runs(RunFolder(tmp_path / "old"))) == ["old"]
    assert find_runs(RunFolder(tmp_path / "nowhere")) == {}


def test_the_row_of_a_run_that_trains_estimates_the_time_left(tmp_path):
    run = identified(tmp_path / "run", config=CONFIG)
    with run.locked():
        row = read_row("run", run, time.time())
    assert (row.status.state, row.data, row.tokenizer, row.max_steps) == ("training", "a.txt b", "byte", 100)
    assert (row.figures.steps, row.figures.best_step, row.figures.val_loss) == (86, 56, 6.452)
    assert row.seconds_left == (100 - 86) * 90.0 / 86
    assert row.parameters is not None
    assert row.problem is None
    assert read_row("run", run, time.time()).seconds_left is None


def test_the_plan_is_known_before_the_first_record(tmp_path):
    run = identified(tmp_path / "run", config=CONFIG, records=())
    run.write_plan(PLAN)
    assert run.plan() == PLAN
    with run.locked():
        row = read_row("run", run, time.time())
    assert (row.parameters, row.seconds_left) == (777, 12.5)


def test_the_row_of_a_finished_run_has_the_figures_of_its_summary(tmp_path):
    summary = RunSummary(run="elsewhere", steps=86, val_loss=1.25, parameters=9, command="tokenloom train")
    run = identified(tmp_path / "run", config=CONFIG, summary=summary)
    run.report_file.write_text("")
    printed = read_row("run", run, time.time()).to_json()
    assert (printed["state"], printed["val_loss"], printed["parameters"], printed["best_step"]) == (
        "finished", 1.25, 9, 56,
    )  # fmt: skip
    assert printed["run"] == "run"


def test_a_broken_file_is_the_problem_of_its_row_only(tmp_path):
    for file in ("config_file", "metrics_file", "summary_file", "plan_file"):
        run = identified(tmp_path / file, config=CONFIG)
        getattr(run, file).write_text("nothing = [that can be read\n{}\n")
        assert getattr(run, file).name in (read_row("run", run, time.time()).problem or "")


def test_the_differences_are_the_settings_that_differ():
    other = CONFIG.with_values(train={"max_steps": 200, "grad_clip": None}, model={"n_layer": 2})
    found = find_differences([CONFIG, other, CONFIG])
    assert [(difference.key, list(difference.values)) for difference in found] == [
        ("model.n_layer", [1, 2, 1]),
        ("train.max_steps", [100, 200, 100]),
        ("train.grad_clip", [1.0, None, 1.0]),
    ]
    assert find_differences([CONFIG, CONFIG]) == []
    assert find_differences([]) == []
