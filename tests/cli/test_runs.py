"""tokenloom runs: the table, and the differences of two runs."""

import json
import shutil
from pathlib import Path

import pytest

from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.run_folder import RunFolder
from tokenloom.serving.follow import FollowedRuns


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Two runs that differ in their length, and one that was stopped."""
    workspace = tmp_path_factory.mktemp("runs")
    (workspace / "a text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
        for name, steps in (("short", 2), ("long", 4), ("stopped", 2)):
            settings = {
                "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
                "train": {"max_steps": steps, "batch_size": 2, "log_interval": 1},
                "sample": {"max_new_tokens": 0},
            }
            path = workspace / "runs" / name
            api.train(workspace / "a text.txt", out=path, tokenizer="byte", settings=settings, quiet=True)
    RunFolder(workspace / "runs" / "stopped").remove_results()
    return workspace


@pytest.fixture
def call(workspace, monkeypatch, capsys):
    """The exit code, stdout and stderr of the command in the workspace."""
    monkeypatch.chdir(workspace)

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["runs", *argv])
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def test_the_table_lists_the_runs_of_the_folder(call):
    code, out, err = call()
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split()[:4] == ["run", "state", "data", "size"]
    assert [line.split()[:2] for line in lines] == [["stopped", "stopped"], ["long", "finished"], ["short", "finished"]]
    assert "2 of 2" in lines[0]
    assert max(map(len, (header, *lines))) <= 160


def test_the_figures_are_those_of_the_summaries(call, workspace):
    code, out, _ = call("runs", "--json")
    assert code == 0
    rows = {row["run"]: row for row in json.loads(out)["runs"]}
    for name in ("short", "long"):
        summary = RunFolder(workspace / "runs" / name).summary()
        for key in ("steps", "tokens", "train_loss", "val_loss", "val_bits_per_byte", "best_val_loss", "parameters"):
            assert rows[name][key] == getattr(summary, key)
    assert rows["stopped"]["val_loss"] is not None
    assert rows["stopped"]["data"].endswith("a text.txt")


def test_the_differences_of_two_runs_are_listed(call):
    code, out, _ = call("--diff", "short", "long")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["setting", "short", "long"],
        ["train.max_steps", "2", "4"],
    ]
    code, out, _ = call("runs", "--diff", "short", "long", "--json")
    assert json.loads(out) == {
        "runs": ["short", "long"],
        "differences": [{"key": "train.max_steps", "values": [2, 4]}],
    }


def test_a_run_that_cannot_be_read_is_listed_with_a_notice(call, workspace):
    broken = RunFolder(workspace / "broken" / "one")
    broken.path.mkdir(parents=True)
    broken.config_file.write_text("[train\n")
    broken.identity_file.write_text("{}")
    code, out, err = call("broken")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["one", "stopped"]
    assert "config.toml" in err


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"run": ', b'{"a": "\xe9"}', b"[" * 100_000, None])
@pytest.mark.parametrize("name", ["config_file", "plan_file", "summary_file", "metrics_file", "samples_file"])
def test_a_broken_file_is_the_problem_of_one_run(call, workspace, tmp_path, name, content):
    for one in ("short", "long"):
        shutil.copytree(workspace / "runs" / one, tmp_path / one)
    path = getattr(RunFolder(tmp_path / "short"), name)
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    code, out, err = call(str(tmp_path), "--json")
    rows = {row["run"]: row for row in json.loads(out)["runs"]}
    assert (code, err, rows["long"]["problem"]) == (0, "", None)
    if "short" in rows and rows["short"]["problem"] is not None:  # an incomplete last record is none
        assert path.name in rows["short"]["problem"]
    served = FollowedRuns().row("short", RunFolder(tmp_path / "short"))
    assert (served.problem is None) or path.name in served.problem


def test_mistakes_are_named(call):
    code, _, err = call("nowhere")
    assert (code, "nowhere is not a folder" in err) == (2, True)
    code, _, err = call("--diff", "short", "none")
    assert (code, 'there is no run "none"' in err) == (2, True)


def test_a_folder_without_runs_has_an_empty_table(call, tmp_path):
    code, out, _ = call(str(tmp_path))
    assert (code, len(out.splitlines())) == (0, 1)
