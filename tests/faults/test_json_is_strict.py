"""No NaN and no Infinity in any JSON that is printed or written, and files that have them can be read."""

import json
import math
from pathlib import Path

import pytest
import torch

from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.metrics import MetricsRecord
from tokenloom.run_folder import JsonlWriter, RunFolder
from tokenloom.run_records import Baselines, RunSummary
from tokenloom.weights.checkpoint import MANIFEST, write_manifest
from tokenloom.weights.safetensors_files import load_tensors, save_tensors

SMALL = ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16", "--model.block-size", "8",
         "--train.batch-size", "1", "--train.max-steps", "1", "--tokenizer", "byte"]  # fmt: skip
COMMANDS = {
    "train": ["train", "text.txt", *SMALL, "--out", "new"],
    "plan": ["plan", *SMALL],
    "prepare": ["prepare", "text.txt", "--tokenizer", "byte", "--out", "shards"],
    "evaluate": ["evaluate", "run", "text.txt"],
    "generate": ["generate", "run", "--max-new-tokens", "2"],
    "inspect": ["inspect", "run", "--text", "some text"],
    "compare": ["compare", "run", "run", "--text", "some text"],
    "runs": ["runs", "."],
    "export": ["export", "run", "out.pth"],
    "info": ["info"],
    "info MODEL": ["info", "run"],
}


def parse(text: str) -> object:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A run whose model is so sure of wrong answers that its perplexity exceeds every float."""
    workspace = tmp_path_factory.mktemp("strict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
        patch.chdir(workspace)
        Path("text.txt").write_text("all work and no play makes Jack a dull boy\n" * 20)
        settings = {
            "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8},
            "train": {"max_steps": 1, "batch_size": 1},
        }
        api.train("text.txt", out="run", tokenizer="byte", settings=settings, quiet=True)
        for weights in Path("run").rglob("model.safetensors"):
            torch.manual_seed(1)
            tensors = load_tensors(weights)
            save_tensors(weights, {name: 1e4 * torch.randn_like(tensor) for name, tensor in tensors.items()})
            (weights.parent / MANIFEST).unlink()
            write_manifest(weights.parent)
    return workspace


@pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS)
def test_the_output_of_every_command_is_json(workspace, monkeypatch, capfd, argv):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
    with pytest.raises(SystemExit) as exit_info:
        main([*argv, "--json"])
    captured = capfd.readouterr()
    assert exit_info.value.code == 0, captured.err
    printed = parse(captured.out)
    assert isinstance(printed, dict)
    if argv[0] in ("evaluate", "inspect"):
        assert printed["perplexity"] is None
        assert printed["loss"] > 700


def test_the_files_of_a_run_are_json(tmp_path):
    run = RunFolder(tmp_path)
    run.write_summary(RunSummary(run="run", val_loss=1e4, val_perplexity=math.inf))
    run.write_baselines(Baselines(xz_bits_per_byte=math.nan))
    log = JsonlWriter(run.metrics_file)
    log.write(MetricsRecord(step=1, tokens=1, epoch=0.5, seconds=1.0, val_perplexity=math.inf).to_json())
    log.close()
    for file in tmp_path.iterdir():
        parse(file.read_text())
    summary, [record] = run.summary(), run.metrics()
    assert summary is not None
    assert (summary.val_loss, summary.val_perplexity, record.val_perplexity) == (1e4, None, None)


def test_files_with_nan_and_infinity_are_read(tmp_path):
    run = RunFolder(tmp_path)
    run.metrics_file.write_text('{"step": 1, "tokens": 1, "epoch": 1, "seconds": 1, "val/perplexity": Infinity}\n')
    run.summary_file.write_text('{"run": "run", "val_perplexity": Infinity, "train_loss": NaN}')
    summary, [record] = run.summary(), run.metrics()
    assert summary is not None
    assert (summary.val_perplexity, record.val_perplexity) == (math.inf, math.inf)
