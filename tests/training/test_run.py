"""Whole runs of tiny models, exact resume in particular."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenloom import api
from tokenloom.compute.runtime import peak_flops
from tokenloom.config_files import dump_toml
from tokenloom.errors import CheckpointError, Interrupted, TokenloomError, TrainingError, UsageError
from tokenloom.reporting import report
from tokenloom.reporting.matplotlib_plots import plot_losses
from tokenloom.reporting.run_state import read_status
from tokenloom.run_folder import RunFolder, read_jsonl
from tokenloom.training import loop, step
from tokenloom.training import run as run_module
from tokenloom.training.display import QuietDisplay
from tokenloom.weights.checkpoint import list_checkpoints

TIMES = ("seconds", "tokens_per_sec", "mfu")
TINY = {
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "dropout": 0.1},
    "data": {"tokenizer": "byte"},
    "train": {
        "max_steps": 60,
        "batch_size": 4,
        "micro_batch_size": 2,  # two micro-batches per step
        "eval_interval": 10,
        "save_interval": 25,
        "log_interval": 7,  # so that a checkpoint is saved between two records
        "warmup_steps": 5,
        "device": "cpu",
    },
    "sample": {"max_new_tokens": 8},
}
VARIANTS = {
    f"{family}-{optimizer}-{precision}": {
        "model": {"family": family},
        # The checkpoint of step 12 is followed by records and an evaluation, which are repeated.
        "train": {"optimizer": optimizer, "precision": precision, "max_steps": 30, "save_interval": 12},
    }
    for family, optimizer in (("gpt2", "adamw"), ("modern", "muon"))
    for precision in ("fp32", "bf16")
}
# As in conftest.py, for processes.
SHORT_RUNS = """
from tokenloom.reporting import report
from tokenloom.training import run
run.peak_flops, report.plot_losses = lambda _: 1e9, lambda *_, **__: None
"""
# Trains each in a process of its own and kills it after step 23. They are forked, because an import takes seconds.
KILLED = (
    SHORT_RUNS
    + """
import json, os, signal, sys
from tokenloom import api
from tokenloom.training.display import QuietDisplay
class Killer(QuietDisplay):
    def stepped(self, step, loss, tokens_per_sec):
        if step == 23:
            os.kill(os.getpid(), signal.SIGKILL)
api._display = lambda quiet: Killer()
for name, settings in json.loads(sys.argv[2]).items():
    if os.fork() == 0:
        api.train(sys.argv[1], out=name, settings=settings)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == -signal.SIGKILL, name
"""
)
# Three commands that start at the same moment, in processes that have imported everything.
TOGETHER = (
    SHORT_RUNS
    + """
import os, sys
from tokenloom import api
from tokenloom.cli.main import main
for number in range(3):
    if os.fork() == 0:
        os.dup2(os.open(f"{number}.json", os.O_WRONLY | os.O_CREAT), 1)
        main()
assert [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)] == [0] * 3
"""
)


class Notices(QuietDisplay):
    """Keeps the notices."""

    def __init__(self, notices: list[str]) -> None:
        self._notices = notices

    def notice(self, text: str) -> None:
        self._notices.append(text)


def settings(**sections):
    """TINY with some values replaced."""
    return {name: values | sections.get(name, {}) for name, values in TINY.items()}


def without_times(path: Path) -> list[dict]:
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_jsonl(path, dict)]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall, and {n * n} more.\n" for n in range(200)))
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory) -> Path:
    """A finished run of 20 steps, with all that a user gets."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    short = {"max_steps": 20, "save_interval": 10, "optimizer": "muon"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setattr(run_module, "peak_flops", peak_flops)
        patch.setattr(report, "plot_losses", plot_losses)
        api.train(text, out=run, settings=settings(train=short), quiet=True)
    return run


@pytest.fixture(scope="module")
def killed(text, tmp_path_factory) -> Path:
    """A folder with a run of each variant that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    variants = {name: settings(**sections) for name, sections in VARIANTS.items()}
    command = [sys.executable, "-c", KILLED, str(text), json.dumps(variants)]
    environment = {**os.environ, "TOKENLOOM_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each variant")
@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_resumed_equals_never_stopped(text, tmp_path, killed, name):
    whole, resumed = tmp_path / "whole", killed / name
    api.train(text, out=whole, settings=settings(**VARIANTS[name]), quiet=True)
    assert [path.name for path in list_checkpoints(resumed / "checkpoints")] == ["step-00000012"]
    assert [record["step"] for record in read_jsonl(resumed / "samples.jsonl", dict)][-1] == 20
    assert (resumed / "run.lock").exists()
    api.resume(resumed, quiet=True)
    assert not (resumed / "run.lock").exists()

    last = "checkpoints/step-00000030"
    for file in ("model.safetensors", "optimizer.safetensors", "config.json"):
        assert (whole / last / file).read_bytes() == (resumed / last / file).read_bytes()
    for file in ("metrics.jsonl", "samples.jsonl"):
        assert without_times(whole / file) == without_times(resumed / file)


def test_a_run_writes_all_its_files_to_its_folder(finished):
    for name in (
        "config.toml",
        "metrics.jsonl",
        "samples.jsonl",
        "summary.json",
        "report.html",
        "loss.png",
        "loss.pdf",
    ):
        assert (finished / name).stat().st_size > 0
    assert not [*finished.rglob("*.unfinished"), *finished.rglob(".*.tmp")]
    assert not list(finished.parent.glob(".timing-*"))
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["steps"] == 20
    assert summary["tokens"] == 20 * 4 * 16
    assert summary["val_loss"] < 5.5  # untrained: ln 257 = 5.55


def test_the_training_loss_is_that_of_the_model_before_each_update(finished):
    first = RunFolder(finished).metrics()[0]
    assert first.step == 7
    assert first.train_loss is not None
    assert 4 < first.train_loss < 5.6
    assert first.tokens == 7 * 64


def test_the_summary_agrees_with_evaluate(finished):
    summary = json.loads((finished / "summary.json").read_text())
    measured = api.evaluate(finished, quiet=True, precision=summary["precision"])
    # The same windows in batches of a different size: sums differ by rounding, in bf16 by up to 2^-8 per product.
    assert measured.loss == pytest.approx(summary["val_loss"], rel=1e-5 if summary["precision"] == "fp32" else 5e-3)


def test_a_finished_run_resumes_only_with_more_steps(finished):
    with pytest.raises(CheckpointError, match=r"finished: 20 of 20 steps.*--train.max-steps"):
        api.resume(finished, quiet=True)


def test_the_first_signal_saves_and_names_the_command_to_resume(text, tmp_path, monkeypatch):
    original = loop.train_step

    def step_and_interrupt(state, step, votes):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(state, step, votes)

    monkeypatch.setattr(loop, "train_step", step_and_interrupt)
    with pytest.raises(Interrupted, match="tokenloom train --resume") as stopped:
        api.train(text, out=tmp_path / "run", settings=settings(), quiet=True)
    assert stopped.value.exit_code == 143
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000004"]


def interrupt_the_final_evaluation(patch, number: signal.Signals) -> None:
    """Raise a signal when the final evaluation starts."""
    original = run_module.evaluate

    def interrupt_and_evaluate(state, **options):
        signal.raise_signal(number)
        return original(state, **options)

    patch.setattr(run_module, "evaluate", interrupt_and_evaluate)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_stopped_in_its_final_evaluation_can_be_completed(text, tmp_path, finished, number):
    run = tmp_path / "run"
    wanted = settings(train={"max_steps": 20, "save_interval": 10, "optimizer": "muon"})
    with pytest.MonkeyPatch.context() as patch:
        interrupt_the_final_evaluation(patch, number)
        with pytest.raises(Interrupted, match="final evaluation, .* step 20.*tokenloom train --resume") as stopped:
            api.train(text, out=run, settings=wanted, quiet=True)
    assert stopped.value.exit_code == 128 + number
    assert not (run / "summary.json").exists()

    summary = api.resume(run, quiet=True)
    assert summary is not None
    uninterrupted = RunFolder(finished).summary()
    assert (summary.steps, summary.val_loss) == (20, uninterrupted.val_loss)
    assert RunFolder(run).is_finished()
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert without_times(run / name) == without_times(finished / name)
    with pytest.raises(CheckpointError, match="finished: 20 of 20 steps"):
        api.resume(run, quiet=True)


def test_a_run_that_stopped_early_can_be_completed(text, tmp_path):
    frozen = {"learning_rate": 1e-30, "muon_learning_rate": 1e-30, "patience": 1, "eval_interval": 5}
    with pytest.MonkeyPatch.context() as patch:
        interrupt_the_final_evaluation(patch, signal.SIGTERM)
        with pytest.raises(Interrupted):
            api.train(text, out=tmp_path / "run", settings=settings(train=frozen), quiet=True)
    assert api.resume(tmp_path / "run", quiet=True).steps == 10
    with pytest.raises(CheckpointError, match=r"stopped early at step 10.* 1 evaluation\. .*--train.patience"):
        api.resume(tmp_path / "run", quiet=True)


def test_a_gradient_that_is_not_finite_does_not_update_the_weights(text, tmp_path, monkeypatch):
    seen = {}
    original = step.compute_gradient

    def compute_nan_gradient(state, number, votes):
        sums = original(state, number, votes)
        if number == 12:
            next(state.model.parameters()).grad.fill_(float("nan"))
            seen["before"] = [parameter.detach().clone() for parameter in state.model.parameters()]
            seen["model"] = state.model
        return sums

    monkeypatch.setattr(step, "compute_gradient", compute_nan_gradient)
    with pytest.raises(TrainingError, match=r"step 13: the gradient is not finite.*windows at tokens"):
        api.train(text, out=tmp_path / "run", settings=settings(train={"max_steps": 20}), quiet=True)
    assert all(
        map(bool, [before.equal(now) for before, now in zip(seen["before"], seen["model"].parameters(), strict=True)])
    )
    run = RunFolder(tmp_path / "run")
    assert read_status(run, time.time()).state == "diverged"
    record = json.loads(run.metrics_file.read_text().splitlines()[-1])
    assert (record["step"], record["grad_norm"]) == (13, None)
    assert math.isfinite(record["train/loss"])
    monkeypatch.undo()
    api.resume(run.path, quiet=True)
    assert read_status(run, time.time()).state == "finished"
    assert all(record.grad_norm is not None for record in run.metrics() if record.train_loss is not None)


def test_the_plan_is_in_the_run_folder(finished):
    plan, summary = RunFolder(finished).plan(), RunFolder(finished).summary()
    assert plan is not None
    assert (plan.max_steps, plan.parameters, plan.tokens_per_step) == (20, summary.parameters, 4 * 16)
    assert plan.baselines == RunFolder(finished).baselines()


def test_a_step_does_not_depend_on_the_micro_batch_size(text, tmp_path):
    losses = []
    for size in (1, 4):
        run = tmp_path / str(size)
        wanted = settings(
            model={"dropout": 0.0}, train={"micro_batch_size": size, "max_steps": 10, "precision": "fp32"}
        )
        losses.append(api.train(text, out=run, settings=wanted, quiet=True).val_loss)
    # fp32 sums in a different order: 1e-7 per operation, amplified over ten steps.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_patience_stops_early_and_keeps_the_best(text, tmp_path):
    frozen = {"learning_rate": 1e-30, "muon_learning_rate": 1e-30}  # the loss stays constant
    wanted = settings(train={**frozen, "patience": 1, "eval_interval": 5})
    summary = api.train(text, out=tmp_path / "run", settings=wanted, quiet=True)
    assert summary.steps == 10  # the best at 5, no better at 10
    assert list_checkpoints(tmp_path / "run" / "checkpoints", "best")


def test_a_budget_determines_the_steps_and_they_are_saved(text, tmp_path):
    wanted = settings(sample={"max_new_tokens": 0})
    del wanted["train"]["max_steps"], wanted["train"]["eval_interval"]
    summary = api.train(text, out=tmp_path / "run", budget=12, settings=wanted, quiet=True)
    assert summary.steps == RunFolder(tmp_path / "run").config().train.max_steps > 1


def test_a_budget_and_a_number_of_steps_are_both_limits(text, tmp_path):
    summary = api.train(text, out=tmp_path / "run", budget=40, settings=settings(train={"max_steps": 3}), quiet=True)
    assert summary.steps == RunFolder(tmp_path / "run").config().train.max_steps == 3


def test_a_budget_that_preparation_uses_up_still_trains_a_step_and_says_why(text, tmp_path, monkeypatch):
    notices = []
    monkeypatch.setattr(api, "_display", lambda quiet: Notices(notices))
    summary = api.train(text, out=tmp_path / "run", budget=40, started=time.time() - 60, settings=settings())
    assert summary.steps == 1
    assert any("preparation has used up the budget" in notice for notice in notices)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"block_size": 100_000}}, r"context of 100,000 tokens.*--model.block-size"),
        ({"train": {"batch_size": 5000, "micro_batch_size": None}}, r"fewer than a batch.*--train.batch-size"),
        ({"model": {"block_size": 4000}}, r"fewer than a batch|validation text"),
        ({"data": {"val_fraction": 0.001}}, r"validation text has .* too few.*--data.val-fraction 0"),
        ({"model": {"vocab_size": 100}}, "smaller than the tokenizer's"),
        ({"sample": {"temperature": 1e-300}}, r"temperature must be 0 .*got 1e-300"),
        ({"train": {"precision": "fp16"}}, "fp16 is not supported on a CPU"),
        ({"train": {"device": "abacus"}}, 'device "abacus" is not supported'),
    ],
)
def test_preflight_errors_name_a_setting_that_works_and_no_files_are_written(text, tmp_path, sections, message):
    with pytest.raises(TokenloomError, match=message):
        api.train(text, out=tmp_path / "run", settings=settings(**sections), quiet=True)
    assert not (tmp_path / "run").exists()


def test_training_without_validation_text_works(text, tmp_path):
    wanted = settings(data={"val_fraction": 0.0}, train={"max_steps": 5})
    summary = api.train(text, out=tmp_path / "run", settings=wanted, quiet=True)
    assert summary.val_loss is None
    assert (tmp_path / "run" / "report.html").exists()


def test_an_existing_folder_is_not_overwritten(finished, text):
    before = (finished / "config.toml").read_bytes()
    with pytest.raises(UsageError, match="exists already.*--resume"):
        api.train(text, out=finished, settings=settings(), quiet=True)
    assert (finished / "config.toml").read_bytes() == before


def test_a_run_that_is_being_trained_is_not_trained_by_another_process(finished, text):
    before = (finished / "summary.json").read_bytes()
    more_steps = {"train": {"max_steps": 30}}
    with RunFolder(finished).locked():
        for train in (
            lambda: api.resume(finished, settings=more_steps, quiet=True),
            lambda: api.train(text, out=finished, settings=settings(), quiet=True),
        ):
            with pytest.raises(CheckpointError, match=rf"{finished} is being trained by process {os.getpid()}"):
                train()
    assert (finished / "summary.json").read_bytes() == before


def test_a_folder_that_another_run_used_while_the_data_was_prepared_is_refused(finished, text, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "_new_run_folder", lambda out, config: RunFolder(finished))
    with pytest.raises(CheckpointError, match="used by another run meanwhile"):
        api.train(text, out=tmp_path / "run", settings=settings(), quiet=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each run")
def test_runs_started_together_use_different_folders(text, tmp_path):
    flags = "--tokenizer byte --train.max-steps 3 --train.batch-size 4 --device cpu --json"
    shape = "--model.n-layer 1 --model.n-head 2 --model.n-embd 16 --model.block-size 16 --sample.max-new-tokens 0"
    command = [sys.executable, "-c", TOGETHER, "train", str(text), *flags.split(), *shape.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    runs = [json.loads((tmp_path / f"{number}.json").read_text())["run"] for number in range(3)]
    assert sorted(runs) == ["runs/rhyme", "runs/rhyme-2", "runs/rhyme-3"]


# A process of its first attempt kills itself after a checkpoint, as if the system had run out of memory.
COMMAND_THAT_IS_KILLED = (
    SHORT_RUNS
    + """
import os, signal
from tokenloom.cli.main import main
from tokenloom.training import loop
original = loop.save
def save_and_die(state, display):
    original(state, display)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and state.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
loop.save = save_and_die
main()
"""
)


def test_two_processes_train_the_same_model_as_one_also_if_one_is_killed_and_restarted(text, tmp_path, capfd):
    train = {"max_steps": 8, "batch_size": 4, "save_interval": 3, "precision": "fp32", "device": "cpu"}
    model = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32}
    given = {"train": train, "model": model, "data": {"tokenizer": "byte"}, "sample": {"max_new_tokens": 0}}
    single = api.train(text, out=tmp_path / "single", settings=given, quiet=True)

    (tmp_path / "settings.toml").write_text(dump_toml(given))
    (tmp_path / "command.py").write_text(COMMAND_THAT_IS_KILLED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["--max-restarts", "1", "command.py", "train", str(text), "--config", "settings.toml", "--json"]
    done = subprocess.run([*torchrun, *command], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)  # one object: only rank 0 prints
    # The two halves of the gradient are summed in a different order: 1e-7 per operation, amplified over eight steps.
    assert summary["val_loss"] == pytest.approx(single.val_loss, rel=1e-4)
    assert [run.name for run in (tmp_path / "runs").iterdir()] == ["rhyme"]
    steps = [record.step for record in RunFolder(tmp_path / "runs" / "rhyme").metrics()]
    assert steps == sorted(set(steps))

    capfd.readouterr()
    api.resume(tmp_path / "runs" / "rhyme", settings={"train": {"max_steps": 10}})
    assert "the number of processes was 2, now it is 1: the result is not bit-identical" in capfd.readouterr().err


def test_the_final_evaluation_reports_its_progress_over_all_windows(text, tmp_path, monkeypatch):
    finished = []

    class Evaluations(QuietDisplay):
        def evaluated(self, done: int, total: int) -> None:
            finished.append((done, total))

    monkeypatch.setattr(api, "_display", lambda quiet: Evaluations())
    api.train(text, out=tmp_path / "run", settings=settings(train={"max_steps": 2}))
    assert finished[-1] == (finished[-1][1],) * 2
    assert len(finished) > 1


def test_the_plan_is_printed_before_training(text, tmp_path, capfd):
    api.train(text, out=tmp_path / "run", settings=settings(train={"max_steps": 2}))
    printed = capfd.readouterr().err
    assert re.search(r"windows +[\d,]+ for training, 4 per batch, [\d,]+ for validation", printed)
    assert re.search(r"needs +about [\d.]+ [kMG]B of memory, about ", printed)
