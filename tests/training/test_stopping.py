"""A run that is stopped in any phase, by one signal or by two, is completed by --resume as if it was never stopped."""

import shlex
import signal
from pathlib import Path

import pytest

from tokenloom import api
from tokenloom.errors import CheckpointError, Interrupted
from tokenloom.run_folder import RunFolder, read_jsonl
from tokenloom.training import budget, loop, run
from tokenloom.weights.checkpoint import list_checkpoints

TIMES = ("seconds", "tokens_per_sec", "mfu")
STEPS = 8
SETTINGS = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "dropout": 0.1},
    "data": {"tokenizer": "byte"},
    "train": {
        "max_steps": STEPS,
        "batch_size": 4,
        "eval_interval": 3,
        "save_interval": 2,
        "log_interval": 2,
        "warmup_steps": 2,
        "precision": "fp32",
        "device": "cpu",
    },
    "sample": {"max_new_tokens": 3},
}
# The function at whose call the signal arrives, which call, and the step at which training stops.
PHASES = {
    "timing steps": (budget, "train_step", 1, 1),
    "timing an evaluation": (budget, "evaluate", 1, 1),
    "creating the model": (run, "build_state", 1, 1),
    "the first step": (loop, "train_step", 1, 1),
    "a step": (loop, "train_step", 4, 4),
    "an evaluation": (loop, "evaluate", 1, 3),
    "saving the best weights": (loop, "save_best", 1, 3),
    "sampling": (loop, "generate_samples", 1, 3),
    "saving": (loop, "save", 2, 4),
    "the last step": (loop, "train_step", STEPS, STEPS),
    "the last evaluation": (loop, "evaluate", 3, STEPS),
    "the last save": (loop, "save", 4, STEPS),
    "the final evaluation": (run, "evaluate", 1, STEPS),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall, and {n * n} more.\n" for n in range(100)))
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def uninterrupted(text, tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        api.train(text, out=folder, settings=SETTINGS, quiet=True)
    return RunFolder(folder)


def train(text: Path, out: Path, **options):
    return api.train(text, out=out, settings=SETTINGS, quiet=True, **options)


def train_with_budget(text: Path, out: Path):
    steps = {name: value for name, value in SETTINGS["train"].items() if name != "max_steps"}
    return api.train(text, out=out, settings=SETTINGS | {"train": steps}, budget="40s", quiet=True)


def signal_at_call(patch: pytest.MonkeyPatch, module, name: str, number: int, signals: int) -> None:
    """Raise SIGINT as often as `signals` when a function is called for that time."""
    original, calls = getattr(module, name), 0

    def interrupted(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == number:
            for _ in range(signals):
                signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    patch.setattr(module, name, interrupted)


def assert_the_same(run: RunFolder, uninterrupted: RunFolder) -> None:
    assert run.is_finished()
    for read in (lambda run: run.metrics_file, lambda run: run.samples_file):
        records, expected = (
            [
                {key: value for key, value in record.items() if key not in TIMES}
                for record in read_jsonl(read(each), dict)
            ]
            for each in (run, uninterrupted)
        )
        assert records == expected
    last, expected = (list_checkpoints(each.checkpoints)[-1] for each in (run, uninterrupted))
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (last / name).read_bytes() == (expected / name).read_bytes()
    assert run.summary().val_loss == uninterrupted.summary().val_loss
    with pytest.raises(CheckpointError, match="is finished"):
        api.resume(run.path, quiet=True)


@pytest.mark.parametrize("phase", PHASES)
def test_the_first_signal_saves_a_checkpoint_from_which_the_run_is_completed(text, tmp_path, uninterrupted, phase):
    module, name, call, step = PHASES[phase]
    with_budget, folder = module is budget, tmp_path / "my run"
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, module, name, call, signals=1)
        with pytest.raises(Interrupted, match=rf"step {step}\b.*tokenloom train --resume") as stopped:
            (train_with_budget if with_budget else train)(text, folder)
    assert stopped.value.exit_code == 130
    assert shlex.split(str(stopped.value))[-1] == str(folder)
    assert list_checkpoints(folder / "checkpoints")[-1].name == f"step-{step:08d}"
    # The number of steps of a budget depends on the machine.
    api.resume(folder, settings={"train": {"max_steps": STEPS}} if with_budget else None, quiet=True)
    if not with_budget:
        assert_the_same(RunFolder(folder), uninterrupted)
    assert RunFolder(folder).is_finished()


@pytest.mark.parametrize("phase", [name for name, (module, *_) in PHASES.items() if module is not budget])
def test_the_second_signal_stops_at_once_and_the_run_can_be_completed(text, tmp_path, uninterrupted, phase):
    module, name, call, _ = PHASES[phase]
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, module, name, call, signals=2)
        with pytest.raises(KeyboardInterrupt):
            train(text, tmp_path / "run")
    api.resume(tmp_path / "run", quiet=True)
    assert_the_same(RunFolder(tmp_path / "run"), uninterrupted)


def test_one_signal_during_the_report_does_not_prevent_it(text, tmp_path, uninterrupted):
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, run, "write_report", 1, signals=1)
        assert train(text, tmp_path / "run") is not None
    assert_the_same(RunFolder(tmp_path / "run"), uninterrupted)


def test_two_signals_during_the_report_leave_a_run_that_can_be_completed(text, tmp_path, uninterrupted):
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, run, "write_report", 1, signals=2)
        with pytest.raises(KeyboardInterrupt):
            train(text, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").is_finished()
    api.resume(tmp_path / "run", quiet=True)
    assert_the_same(RunFolder(tmp_path / "run"), uninterrupted)


@pytest.mark.parametrize(("module", "name"), [(api, "prepare_cached"), (run, "preflight"), (run, "_baselines")])
def test_a_signal_before_training_leaves_no_run(text, tmp_path, uninterrupted, module, name):
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, module, name, 1, signals=1)
        with pytest.raises(KeyboardInterrupt):
            train(text, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(text, tmp_path / "run")
    assert_the_same(RunFolder(tmp_path / "run"), uninterrupted)
