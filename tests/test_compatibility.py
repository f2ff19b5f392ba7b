"""Runs that version 0.1.0 wrote before its layout was changed still resume, evaluate, generate and export.

tests/fixtures/runs-0.1.0 holds two small runs of 30 steps on text.txt, what that version measured on them, and the
last metrics record after it had resumed them to 40 steps.
"""

import json
import shutil
from pathlib import Path

import pytest

from tokenloom.cli.main import main

FIXTURES = Path(__file__).parent / "fixtures" / "runs-0.1.0"
FAMILIES = ("gpt2", "modern")
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


@pytest.mark.parametrize("family", FAMILIES)
def test_an_old_run_resumes_with_the_same_losses(old_runs, capsys, family):
    call(capsys, "train", "--resume", family, "--train.max-steps", "40")
    record = json.loads(Path(family, "metrics.jsonl").read_text().splitlines()[-1])
    before = expected(f"{family}-resumed-to-40.json")
    for key in ("step", "tokens", "epoch", "train/loss", "val/loss", "val/bits_per_byte", "lr", "grad_norm"):
        assert record[key] == pytest.approx(before[key], rel=TOLERANCE), key


@pytest.mark.parametrize("family", FAMILIES)
def test_an_old_run_is_evaluated_alike(old_runs, capsys, family):
    before = expected(f"{family}-evaluated.json")
    result = call(capsys, "evaluate", family, "val.txt")
    for key in ("loss", "perplexity", "bits_per_byte"):
        assert result[key] == pytest.approx(before[key], rel=TOLERANCE), key
    assert result["tokens"] == before["tokens"]


@pytest.mark.parametrize(("family", "format", "out"), [("gpt2", "hf", "out"), ("modern", "pth", "out.pth")])
def test_an_old_run_generates_and_exports(old_runs, capsys, family, format, out):
    assert call(capsys, "generate", family, "--max-new-tokens", "3", "--prompt", "The")
    call(capsys, "export", family, out, "--format", format)
    assert Path(out).exists()
