"""A search: its trials and files, an interruption and its continuation, and trials that fail."""

import json
import math
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tokenloom as tl
from tokenloom.cli.main import main
from tokenloom.config import Config
from tokenloom.config_files import read_toml
from tokenloom.errors import CheckpointError, Interrupted, MissingExtraError, TrainingError, UsageError
from tokenloom.metrics import MetricsRecord
from tokenloom.run_folder import RunFolder
from tokenloom.tuning import search as search_module
from tokenloom.tuning import trial as trial_module
from tokenloom.tuning.folder import SearchFolder
from tokenloom.tuning.space import combinations, parse_space
from tokenloom.tuning.study import UNPRUNED_TRIALS, Study
from tokenloom.tuning.trial import PrunedError, TrialDisplay

SETTINGS = {
    "model": {"n_head": 2, "n_embd": 16, "block_size": 8},
    "data": {"tokenizer": "byte"},
    "train": {"max_steps": 5, "batch_size": 2, "eval_batches": 2},
}
HEADLESS = {**SETTINGS, "model": {"n_layer": 1, "n_embd": 16, "block_size": 8}}
TRIES = {"train.learning_rate": "1e-3..1e-1:log", "model.n_layer": "1,2"}
SPACE = parse_space({"train.learning_rate": "1e-4..1e-2:log"})


@pytest.fixture(scope="module", autouse=True)
def workspace(tmp_path_factory):
    """A folder with a text, in which a run takes a fraction of a second."""
    folder = tmp_path_factory.mktemp("searches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        patch.setattr(search_module, "plot_search", lambda *_: None)  # takes longer than a run, and is tested elsewhere
        (folder / "book.txt").write_text("It was a dark and stormy night.\n" * 100)
        yield folder


def run_search(out, **changes):
    arguments = {"tries": TRIES, "trials": 3, "out": out, "settings": SETTINGS, **changes}
    return tl.search("book.txt", **arguments)


def in_order(result):
    """The settings and values of the trials that count."""
    trials = sorted((trial for trial in result.trials if trial.state != "interrupted"), key=lambda trial: trial.number)
    return [(trial.settings, trial.val_bits_per_byte) for trial in trials]


@pytest.fixture(scope="module")
def finished(workspace):
    lines = []
    result = run_search("whole", progress=lines.append)
    return result, lines


def test_trials_are_runs_ranked_by_bits_per_byte(finished):
    result, lines = finished
    values = [trial.val_bits_per_byte for trial in result.trials]
    assert [trial.state for trial in result.trials] == ["finished"] * 3
    assert values == sorted(values)
    assert len({trial.settings["train.learning_rate"] for trial in result.trials}) == 3
    for trial in result.trials:
        summary, config = RunFolder(Path(trial.run)).summary(), RunFolder(Path(trial.run)).config()
        assert summary.val_bits_per_byte == trial.val_bits_per_byte
        assert (config.model.n_layer, trial.steps) == (trial.settings["model.n_layer"], 5)
        assert config.sample.max_new_tokens == 0
    assert "seed 1337" in lines[0]


def test_the_best_configuration_trains_longer_with_the_printed_command(finished):
    result, _ = finished
    assert result.command == "tokenloom train --config whole/best.toml --train.max-steps 50"
    saved = read_toml(Path("whole/best.toml"))
    config = Config.of(saved)
    assert "max_steps" not in saved["train"]
    assert config.model.n_layer == result.best.settings["model.n_layer"]
    assert config.train.learning_rate == result.best.settings["train.learning_rate"]
    assert config.sample.max_new_tokens == 80
    assert config.data.sources == ("book.txt",)


def test_the_folder_has_the_result(finished, workspace):
    result, _ = finished
    record = json.loads((workspace / "whole/search.json").read_text())
    assert record["result"] == json.loads(json.dumps(result.to_json()))


def test_an_interrupted_search_ends_like_one_that_was_not(finished, monkeypatch):
    class Impatient(TrialDisplay):
        def stepped(self, step, loss, tokens_per_sec):
            if step == 2:
                signal.raise_signal(signal.SIGINT)

    run_search("parts", trials=1)
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "TrialDisplay", Impatient)
        with pytest.raises(
            Interrupted, match="will be repeated. Continue with: tokenloom search --resume parts"
        ) as error:
            run_search("parts")
    assert error.value.exit_code == 130
    result = tl.search(resume="parts")
    assert [trial.number for trial in result.trials if trial.state == "interrupted"] == [2]
    assert in_order(result) == in_order(finished[0])
    assert in_order(run_search("parts")) == in_order(result), "all trials are done"


def test_an_interruption_before_training_says_how_to_continue(workspace):
    lines = []

    def interrupt(line):
        lines.append(line)
        if line.startswith("trial-001 (1 of 3)"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search("early", progress=interrupt)
    assert "Continue with: tokenloom search --resume early" in lines[-1]
    (trial,) = json.loads((workspace / "early/search.json").read_text())["result"]["trials"]
    assert trial["state"] == "interrupted"


def test_a_journal_that_was_changed_is_refused(tmp_path):
    folder = SearchFolder(tmp_path)
    Study(folder, SPACE, seed=1).ask()
    folder.journal_file.write_text("not JSON\n" + folder.journal_file.read_text())
    with pytest.raises(CheckpointError, match="trials.jsonl is invalid.*choose another --out"):
        Study(folder, SPACE, seed=1)


def test_a_search_that_ended_before_its_first_trial_is_begun_again(tmp_path):
    folder = SearchFolder(tmp_path)
    folder.journal_file.touch()
    folder.lock_file.touch()
    assert folder.is_unused()
    folder.record_file.write_text("{}")
    assert not folder.is_unused()


def test_a_trial_of_a_killed_process_is_repeated(tmp_path):
    folder = SearchFolder(tmp_path)
    _, asked = Study(folder, SPACE, seed=1).ask()
    (tmp_path / "trials.jsonl.lock").touch()
    with folder.journal_file.open("a") as file:
        file.write('{"op_code": 4, "wor')
    study = Study(folder, SPACE, seed=1)
    assert [trial.state for trial in study.trials()] == ["interrupted"]
    assert study.ask()[1] == asked
    assert all(json.loads(line) for line in folder.journal_file.read_text().splitlines())


def test_a_trial_that_is_worse_than_the_median_is_pruned(tmp_path):
    def record(step, value):
        return MetricsRecord(step=step, tokens=step, epoch=0.0, seconds=float(step), val_bits_per_byte=value)

    study = Study(SearchFolder(tmp_path), SPACE, seed=1)
    for value in range(UNPRUNED_TRIALS):
        trial, _ = study.ask()
        for tenth in range(1, 10):
            trial.report(value, tenth)
        study.tell(trial, {"state": "finished", "steps": 10, "seconds": 1.0}, value)
    good, _ = study.ask()
    display = TrialDisplay(good)
    display.replanned(100)
    display.recorded(record(30, 1.0))
    study.tell(good, {"state": "finished", "steps": 10, "seconds": 1.0}, 1.0)
    trial, _ = study.ask()
    display = TrialDisplay(trial)
    display.replanned(100)
    display.recorded(record(20, 99.0))  # too early
    with pytest.raises(PrunedError):
        display.recorded(record(30, 99.0))
    study.tell(trial, {"state": "pruned", "steps": display.steps, "seconds": display.seconds}, None)
    last = study.trials()[-1]
    assert (last.state, last.val_bits_per_byte, last.steps) == ("pruned", 99.0, 30)


def test_the_setting_that_matters_is_the_most_important(tmp_path):
    space = parse_space({"train.learning_rate": "0.1..1.0", "train.weight_decay": "0.1..1.0"})
    study = Study(SearchFolder(tmp_path), space, seed=1)
    assert study.importance() == {}
    for _ in range(20):
        trial, values = study.ask()
        study.tell(trial, {"state": "finished", "steps": 1, "seconds": 1.0}, values["train.learning_rate"])
    shares = study.importance()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["train.learning_rate"] > 2 * shares["train.weight_decay"]


@pytest.mark.parametrize("seed", range(3))
def test_no_combination_is_tried_twice(tmp_path, seed):
    space = parse_space({"model.n_layer": "1..3", "train.weight_decay": [0.0, 0.1], "train.grad_clip": "none,1"})
    tried = []
    for _ in combinations(space):
        study = Study(SearchFolder(tmp_path), space, seed)
        trial, values = study.ask()
        if len(tried) == 7:
            study.interrupted(trial.number + 1)
            trial, repeated = study.ask()
            assert repeated == values
        study.tell(trial, {"state": "finished", "steps": 1, "seconds": 1.0}, values["model.n_layer"])
        tried.append(values)
    assert all(values in tried for values in combinations(space))


def test_a_search_ends_when_every_combination_was_tried():
    lines = []
    result = run_search("few", tries={"model.n_layer": "1,2"}, trials=5, progress=lines.append)
    assert lines[0] == "--try has 2 combinations of values, so there are 2 trials instead of 5"
    assert sorted(trial.settings["model.n_layer"] for trial in result.trials) == [1, 2]
    assert result.trials_planned == 2
    longer = run_search("few", tries={"model.n_layer": "1,2"}, trials=None)
    assert in_order(longer) == in_order(result)


def test_a_trial_that_diverges_or_contradicts_itself_does_not_end_the_search():
    tries = {"train.learning_rate": [1e-2, 1e38], "model.n_head": [2, 3]}
    settings = {**HEADLESS, "train": {**SETTINGS["train"], "optimizer": "adamw", "warmup_steps": 0, "grad_clip": None}}
    result = run_search("rough", trials=5, tries=tries, settings=settings)
    by_state = {trial.state: trial for trial in result.trials}
    assert set(by_state) == {"finished", "diverged", "failed"}
    assert "not finite" in by_state["diverged"].message
    assert "not a multiple of model.n_head 3" in by_state["failed"].message
    assert result.trials[0].state == "finished"


def test_a_trial_whose_last_step_diverges_does_not_end_the_search(monkeypatch):
    train_run = trial_module.train_run

    def train_to_nan(*args, **options):
        return replace(train_run(*args, **options), val_bits_per_byte=math.nan)

    monkeypatch.setattr(trial_module, "train_run", train_to_nan)
    (trial,) = run_search("late", trials=1).trials
    assert (trial.state, trial.message) == ("diverged", "the validation loss is not finite after the last step")


@pytest.mark.parametrize(
    ("heads", "trials", "failed"),
    [([3, 5, 7, 9], 9, "first 3 trials"), ([3, 5], None, "first 2 trials"), ([3, 5], 1, "only trial")],
)
def test_a_search_stops_if_the_first_trials_fail(heads, trials, failed):
    with pytest.raises(TrainingError, match=f"the {failed} failed.*not a multiple of model.n_head"):
        run_search(f"hopeless-{len(heads)}-{trials}", tries={"model.n_head": heads}, trials=trials, settings=HEADLESS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "20s"}, "whole has another search: its --budget in seconds was set, not 20"),
        ({"preset": "modern-s"}, "its --preset was"),
        ({"tries": {**TRIES, "model.n_layer": "1,3"}}, "its --try model.n-layer was 1,2, not 1,3"),
        ({"settings": {**SETTINGS, "train": {**SETTINGS["train"], "seed": 2}}}, "its train.seed was"),
    ],
)
def test_a_folder_is_continued_only_by_the_same_search(finished, changes, message):
    with pytest.raises(UsageError, match=message):
        run_search("whole", **changes)


def test_mistakes_are_found_before_the_first_trial(workspace, finished):
    with pytest.raises(UsageError, match="model.n-layer is set and tried"):
        run_search("new", settings={"model": {"n_layer": 2}})
    with pytest.raises(UsageError, match="--trials must be at least 1, got 0"):
        run_search("new", trials=0)
    with pytest.raises(UsageError, match="Write it to a file"):
        tl.search("-", tries=TRIES, out="new")
    with pytest.raises(UsageError, match="is not a search. Choose another --out"):
        run_search("whole/trial-001")
    with pytest.raises(CheckpointError, match="is not a search: it has no search.json"):
        tl.search(resume="whole/trial-001")
    with SearchFolder(workspace / "whole").locked(), pytest.raises(CheckpointError, match="another process runs"):
        run_search("whole", trials=4)
    assert not (workspace / "new").exists()


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"tokenloom\[tune\]"):
        run_search("none")


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(["search", *arguments])
    return exit_info.value.code, *capsys.readouterr()


def test_the_command_prints_a_table_or_json(finished, capsys):
    code, printed, _ = call(capsys, "--resume", "whole")
    assert code == 0
    rows = printed.splitlines()
    assert rows[0].split() == ["rank", "trial", "state", "learning-rate", "n-layer", "bits/byte", "steps", "time"]
    assert [row.split()[0] for row in rows[1:4]] == ["1", "2", "3"]
    assert finished[0].command in printed
    code, printed, _ = call(capsys, "--resume", "whole", "--json")
    assert (code, json.loads(printed)) == (0, json.loads(json.dumps(finished[0].to_json())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["book.txt", "--try", "train.learning-rate"], "Write NAME=LOW..HIGH or NAME=A,B,C"),
        (["book.txt", "--try", "seed=1,2", "--try", "train.seed=3..4"], "tried twice"),
        (["book.txt", "--try", "tokenizer=byte"], "data.tokenizer needs a range"),
        (["book.txt", "--try", "train.lr=1,2"], "Did you mean train.learning-rate?"),
        (["book.txt", "--try", "train.beta1=0.8,0.9", "--budget", "soon"], "290s, 5m or 1h30m"),
        (["book.txt"], "nothing to try"),
        (["book.txt", "--resume", "whole"], "got book.txt. Omit it"),
        (["--resume", "whole", "--try", "train.beta1=0.8,0.9"], "--try cannot be used with --resume"),
        (["--resume", "whole", "--train.beta1", "0.9"], "--train cannot be used with --resume"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(capsys, arguments, message):
    code, printed, error = call(capsys, *arguments)
    assert (code, printed) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1
