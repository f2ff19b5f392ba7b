"""A GPT-2 run that version 0.1.0 wrote still resumes, evaluates, generates and exports; a modern one is refused.

tests/fixtures/runs-0.1.0 holds two small runs of 30 steps on text.txt, what that version measured on them, and the
last metrics record after it had resumed them to 40 steps.
"""

import json
import shutil
from pathlib import Path

import pytest

from tokenloom.cli.main import main

FIXTURES = Path(__file__).parent / "fixtures" / "runs-0.1.0"
# Sums of floating-point numbers differ in their last digits between processors, and 10 steps carry that on.
TOLERANCE = 1e-3


@pytest.fixture
def old_runs(tmp_path, monkeypatch):
    shutil.copytree(FIXTURES, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def call(capsys, *argv: str) -> dict:
    with pytest.raises(SystemExit) as left:
        main([*argv, "--json"])
    printed = capsys.readouterr()
    assert left.value.code == 0, printed.err
    return json.loads(printed.out)


def expected(name: str) -> dict:
    return json.loads((FIXTURES / name).read_text())


def test_an_old_run_resumes_with_the_same_losses(old_runs, capsys):
    call(capsys, "train", "--resume", "gpt2", "--train.max-steps", "40")
    record = json.loads(Path("gpt2", "metrics.jsonl").read_text().splitlines()[-1])
    before = expected("gpt2-resumed-to-40.json")
    for key in ("step", "tokens", "epoch", "train/loss", "val/loss", "val/bits_per_byte", "lr", "grad_norm"):
        assert record[key] == pytest.approx(before[key], rel=TOLERANCE), key


def test_an_old_run_is_evaluated_alike(old_runs, capsys):
    before = expected("gpt2-evaluated.json")
    result = call(capsys, "evaluate", "./gpt2", "val.txt")
    for key in ("loss", "perplexity", "bits_per_byte"):
        assert result[key] == pytest.approx(before[key], rel=TOLERANCE), key
    assert result["tokens"] == before["tokens"]


def test_an_old_run_generates_and_exports(old_runs, capsys):
    assert call(capsys, "generate", "./gpt2", "--max-new-tokens", "3", "--prompt", "The")
    call(capsys, "export", "./gpt2", "out", "--format", "hf")
    assert Path("out").exists()


# The architecture of the modern family was another one.
@pytest.mark.parametrize(
    "command",
    [
        ("train", "--resume", "modern"),
        ("train", "val.txt", "--init-from", "modern"),
        ("evaluate", "modern", "val.txt"),
        ("generate", "modern"),
        ("inspect", "modern", "val.txt"),
        ("export", "modern", "out.pth"),
    ],
)
def test_an_old_modern_run_is_refused_with_the_version_that_reads_it(old_runs, capsys, command):
    with pytest.raises(SystemExit) as left:
        main(list(command))
    assert left.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "tokenloom: this model has the modern architecture of tokenloom 0.1, which only that version reads. "
        "Use tokenloom 0.1, or train the model again."
    ]
