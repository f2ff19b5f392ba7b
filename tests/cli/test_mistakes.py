"""Usage mistakes: one line on stderr, exit code 1 or 2, and no file created or changed."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch

from tokenloom import api
from tokenloom.cli.main import main

SHORT = ["--train.max-steps", "2", "--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16",
         "--model.block-size", "8", "--train.batch-size", "2", "--tokenizer", "byte"]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """A folder with good and bad files, and a small run."""
    workspace = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
        patch.chdir(workspace)
        (workspace / "good.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
        api.train(
            "good.txt",
            out="run",
            quiet=True,
            tokenizer="byte",
            settings={
                "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8},
                "train": {"max_steps": 2, "batch_size": 2},
            },
        )
    (workspace / "latin1.txt").write_bytes(b"caf\xe9 au lait " * 50)
    (workspace / "empty.txt").write_text("")
    (workspace / "short.txt").write_text("hi")
    (workspace / "odd.xyz").write_text("text of an unknown kind")
    (workspace / "nokey.jsonl").write_text('{"text": "fine"}\n{"body": "not fine"}\n')
    (workspace / "badline.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (workspace / "number.jsonl").write_text('{"text": 5}\n')
    (workspace / "broken.txt.gz").write_bytes(gzip.compress(b"some text " * 1000)[:40])
    (workspace / "nogzip.txt.gz").write_bytes(b"this is no gzip file")
    (workspace / "noparquet.parquet").write_bytes(b"PAR? this is no parquet file")
    (workspace / "nothing").mkdir()
    (workspace / "bad.toml").write_text("[train\nmax_steps = 3\n")
    (workspace / "unknown.toml").write_text("[train]\nmax_iters = 3\n")
    (workspace / "table.toml").write_text("[training]\nmax_steps = 3\n")
    (workspace / "flat.toml").write_text("train = 3\n")
    (workspace / "notjson.json").write_text("{")
    (workspace / "wordpiece.json").write_text('{"model": {"type": "WordPiece", "vocab": {"a": 0}}}')
    (workspace / "existing").mkdir()
    (workspace / "existing" / "thesis.txt").write_text("the only copy")
    shutil.copytree(workspace / "run", workspace / "corrupt")
    for weights in (workspace / "corrupt").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-10])
    shutil.copytree(workspace / "run", workspace / "gone")
    shutil.rmtree(workspace / "gone" / "checkpoints")
    torch.save({"weights": torch.nn.Linear(2, 2)}, workspace / "whole.pth")  # a pickled module, not its tensors
    (workspace / "strange").mkdir()
    (workspace / "strange" / "config.json").write_text('{"model_type": "bert"}')
    return workspace


MISTAKES = [
    # Arguments, exit code, and a part of the message.
    (["trian"], 2, "unknown command"),
    (["train", "good.txt", "--max_iters", "5"], 2, "--train.max-steps"),
    (["train", "good.txt", "--train.max-stepz", "5"], 2, "--train.max-steps"),
    (["train", "good.txt", "--lr", "5"], 2, "--train.learning-rate"),
    (["train", "good.txt", "--train.max-steps", "many"], 2, "--train.max-steps must be an integer, got many"),
    (["train", "good.txt", "--train.max-steps", "0"], 2, "train.max_steps"),
    (["train", "good.txt", "--model.dropout", "1.5"], 2, "model.dropout"),
    (["train", "good.txt", "--model.n-embd", "10", "--model.n-head", "3"], 2, "Try --model.n-embd"),
    (["train", "good.txt", "--model.n-head", "3", "--model.n-kv-head", "2"], 2, "n_kv_head"),
    (["train", "good.txt", "--train.precision", "fp64"], 2, "train.precision"),
    (["train", "good.txt", "--train.batch-size", "4", "--train.micro-batch-size", "3"], 2, "divide"),
    (["train", "good.txt", "--preset"], 2, "--preset"),
    (["train", "good.txt", "--preset", "modern-xz"], 2, "Did you mean modern-xs"),
    (["train", "good.txt", "--config", "missing.toml"], 2, "missing.toml does not exist"),
    (["train", "good.txt", "--config", "bad.toml"], 2, "not valid TOML"),
    (["train", "good.txt", "--config", "unknown.toml"], 2, "Did you mean train.max_steps"),
    (["train", "good.txt", "--config", "flat.toml"], 2, "must be a table"),
    (["train", "good.txt", "--config", "table.toml"], 2, "unknown table [training]. Did you mean [train]?"),
    (["train", "good.txt", "--epochs", "3"], 2, "--train.max-steps"),
    (["train", "good.txt", *SHORT, "--out", "good.txt/run"], 2, "cannot write a run to good.txt: "),
    (["train", "good.txt", "--budget", "soon"], 2, "290s, 5m or 1h30m"),
    (["train", "good.txt", "--budget", "-5m"], 2, "290s, 5m or 1h30m"),
    (["train", "good.txt", "--device", "cuda:7", *SHORT], 2, "not available on this machine"),
    (["train", "good.txt", "--device", "gpu", *SHORT], 2, 'device "gpu" is not supported'),
    (["train", "god.txt", *SHORT], 1, "good.txt"),
    (["train", "tinyshakespear", *SHORT], 1, "tinyshakespeare"),
    (["train", "nothing", *SHORT], 1, "contains no supported file"),
    (["train", "*.nope", *SHORT], 1, "matches nothing"),
    (["train", "odd.xyz", *SHORT], 1, "odd.xyz"),
    (["train", "empty.txt", *SHORT], 1, "empty"),
    (["train", "short.txt", *SHORT], 1, "--model.block-size"),
    (["train", "latin1.txt", *SHORT], 1, "byte 0xe9 at offset 3"),
    (["train", "nokey.jsonl", *SHORT], 1, "nokey.jsonl"),
    (["train", "badline.jsonl", *SHORT], 1, "badline.jsonl"),
    (["train", "number.jsonl", *SHORT], 1, "number.jsonl"),
    (["train", "broken.txt.gz", *SHORT], 1, "broken.txt.gz"),
    (["train", "nogzip.txt.gz", *SHORT], 1, "nogzip.txt.gz"),
    (["train", "noparquet.parquet", *SHORT], 1, "noparquet.parquet"),
    (["train", "good.txt", *SHORT[:-1], "gpt3"], 1, "gpt2"),
    (["train", "good.txt", *SHORT[:-1], "bpe:10"], 1, "bpe:10"),
    (["train", "good.txt", *SHORT[:-1], "bpe:x"], 1, "bpe"),
    (["train", "good.txt", *SHORT[:-1], "notjson.json"], 1, "notjson.json"),
    (["train", "good.txt", *SHORT[:-1], "wordpiece.json"], 1, "wordpiece.json"),
    (["train", "good.txt", *SHORT, "--out", "existing"], 2, "existing exists already"),
    (["train", "good.txt", *SHORT, "--out", "good.txt"], 2, "good.txt exists already"),
    (["train", "good.txt", *SHORT, "--model.vocab-size", "100"], 2, "smaller than the tokenizer"),
    (["train", "good.txt", *SHORT, "--seed", "1.9"], 2, "--seed must be an integer, got 1.9"),
    (["train", "good.txt", *SHORT, "--seed", "9" * 30], 2, "train.seed: must be below 2^64"),
    (["train", "good.txt", *SHORT, "--sample.seed", "9" * 30], 2, "sample.seed: must be below 2^64"),
    (["train", "good.txt", *SHORT, "--train.learning-rate", "inf"], 2, "--train.learning-rate must be a finite"),
    (["train", "good.txt", *SHORT, "--train.learning-rate", "nan"], 2, "--train.learning-rate must be a finite"),
    (["train", "good.txt", *SHORT, "--out", "~nosuchuser/x"], 2, "./~nosuchuser"),
    (["train", "good.txt", *SHORT, "--add-token", "-"], 1, "'-' cannot be added: it is already a token"),
    (["train", "~nosuchuser/x", *SHORT], 2, "./~nosuchuser"),
    (["train", "good.txt", "--init-from", "~nosuchuser/x"], 2, "./~nosuchuser"),
    (["train", "~nosuchuser/x"], 2, "./~nosuchuser"),
    (["train", "nosuchfile.txt"], 1, "nosuchfile.txt"),
    (["train", "good.txt", *SHORT[:-1], "~nosuchuser/x"], 2, "./~nosuchuser"),
    (["train", "it was the best of times " * 5000, *SHORT], 1, "write it to standard input and pass -"),
    (["train", "what was the best of times? " * 5000, *SHORT], 1, "write it to standard input and pass -"),
    (["train", "--resume", "nothing"], 1, "not a run"),
    (["train", "--resume", "run"], 1, "finished: 2 of 2 steps"),
    (["train", "--resume", "run", "--train.max-steps", "1"], 1, "made 2 steps already, more than --train.max-steps 1"),
    (["train", "--resume", "run", "--preset", "modern-s"], 2, "--preset cannot be used with --resume"),
    (["train", "--resume", "run", "--model.n-layer", "2"], 1, "its model.n_layer was"),
    (["train", "--resume", "corrupt", "--train.max-steps", "4"], 1, "no checkpoint of corrupt is valid"),
    (["train", "--resume", "run", "gone"], 2, "takes one run"),
    (["prepare", "good.txt", "--tokenizer", "byte"], 2, "--out"),
    (["prepare", "good.txt", "--tokenizer", "byte", "--out", "existing"], 1, "existing"),
    (["prepare", "latin1.txt", "--tokenizer", "byte", "--out", "new"], 1, "byte 0xe9"),
    (["prepare", "good.txt", "--val-fraction", "2", "--out", "new"], 2, "data.val_fraction"),
    (["evaluate"], 2, "tokenloom evaluate needs MODEL. See tokenloom evaluate --help."),
    (["evaluate", "~nosuchuser/x"], 2, "./~nosuchuser"),
    (["evaluate", "run", "~nosuchuser/x"], 2, "./~nosuchuser"),
    (["evaluate", "run", "--context", "0"], 2, "context must be from 1"),
    (["evaluate", "run", "--context", "1.5"], 2, "--context must be an integer, got 1.5"),
    (["evaluate", "run", "--stride", "0"], 2, "stride must be from 1"),
    (["evaluate", "it was the best of times " * 5000], 1, "best of times… does not exist"),
    (["evaluate", "run", "it was the best of times " * 5000], 1, "write it to standard input and pass -"),
    (["evaluate", "nowhere"], 1, "nowhere does not exist"),
    (["evaluate", "good.txt"], 1, "neither a folder nor a file"),
    (["evaluate", "run", "missing.txt"], 1, "missing.txt"),
    (["evaluate", "run", "good.txt", "--stride", "9"], 2, "stride"),
    (["evaluate", "run", "good.txt", "--context", "99"], 2, "context"),
    (["evaluate", "run", "empty.txt"], 1, "at least 2 tokens"),
    (["evaluate", "strange"], 1, "strange"),
    (["evaluate", "whole.pth"], 1, "--trust"),
    (["evaluate", "missing.pth"], 1, "missing.pth does not exist"),
    (["info", "whole.pth", "--trust"], 1, "is not a tensor"),
    (["chapter5", "--quick", "--device", "gpu"], 2, 'device "gpu" is not supported'),
    (["chapter5", "--quick", "--out", "good.txt"], 1, "good.txt"),
    (["evaluate", "corrupt"], 1, "no valid checkpoint"),
    (["generate", "run", "Once"], 2, 'unexpected argument "Once". A text to continue is passed with --prompt.'),
    (["runs", ".", "more"], 2, 'unexpected argument "more". See tokenloom runs --help.'),
    (["export", "run"], 2, "tokenloom export needs OUT."),
    (["export", "run", "model.onnx"], 2, "not a .onnx file. Name a folder, a .gguf or a .pth."),
    (["runs", ".", "--diff", "run"], 2, "--diff needs 2 values, got 1."),
    (["generate", "gone"], 1, "gone"),
    (["generate", "run@step-7"], 1, "Available: @step-1, @step-2"),
    (["generate", "nothing"], 1, "config.json"),
    (["generate", "run", "--temperature", "-1"], 2, "temperature"),
    (["generate", "run", "--top-k", "0"], 2, "top_k"),
    (["generate", "run", "--top-p", "2"], 2, "top_p"),
    (["generate", "run", "--num-samples", "0"], 2, "--num-samples"),
    (["generate", "run", "--num-samples", "9" * 30], 2, "from 1 to 1,000,000"),
    (["generate", "run", "--max-new-tokens", "2.7"], 2, "--max-new-tokens must be an integer, got 2.7"),
    (["generate", "run", "--seed", "1.9"], 2, "--seed must be an integer, got 1.9"),
    (["generate", "run", "--seed", "9" * 30], 2, "seed must be from 0 to 2^64 - 1"),
    (["generate", "run", "--temperature", "nan"], 2, "--temperature must be a finite number, got nan"),
    (["generate", "run", "--prompt", "-x"], 2, "--prompt=-VALUE"),
    (["generate", "run", "--prompt", "caf\udce9"], 1, "--prompt is not UTF-8: byte 0xe9 at offset 3"),
    (["generate", "run", "--max-new-tokens", "-1"], 2, "max_new_tokens"),
    (["generate", "run", "--stop", ""], 2, "stop"),
    (["export", "run", "out", "--format", "onnx"], 2, 'no format "onnx"'),
    (["export", "run", "existing"], 2, "existing already exists"),
    (["export", "run", "good.txt", "--format", "pth"], 2, "good.txt already exists"),
    (["export", "run", "out.pth", "--format", "book"], 1, "modern family cannot be exported as book"),
    (["export", "run", "out", "--format", "pth"], 2, "out.pth"),
    (["export", "nowhere", "out"], 1, "nowhere does not exist"),
    (["inspect", "run"], 2, "--text"),
    (["inspect", "run", "good.txt", "--text", "both"], 2, "--text"),
    (["inspect", "run", "missing.txt"], 1, "missing.txt"),
    (["inspect", "run", "it was the best of times " * 5000], 1, "pass a text itself with --text"),
    (["inspect", "run", "good.txt", "--stride", "0"], 2, "stride must be from 1"),
    (["inspect", "run", "good.txt", "--context", "0"], 2, "context must be from 1"),
    (["compare", "run", "run", "good.txt", "--words", "-2"], 2, "--words must be 0 or more"),
    (["bench", "train", "--repeats", "1.5"], 2, "--repeats must be an integer, got 1.5"),
    (["bench", "train", "--seconds", "nan"], 2, "--seconds must be a finite number, got nan"),
    (["inspect", "run", "latin1.txt"], 1, "not UTF-8"),
    (["inspect", "run", "--text", "x"], 1, "at least 2 tokens"),
    (["inspect", "run", "good.txt", "--top", "-1"], 2, "top"),
    (["inspect", "run", "good.txt", "--context", "99"], 2, "context"),
    (["info", "nowhere"], 1, "nowhere"),
    (["serve", "nowhere"], 1, "nowhere does not exist"),
    (["serve", "run", "--port", "65536"], 2, "port must be from 0 to 65535"),
    (["serve", "run", "--host", "0.0.0.0"], 2, "--api-key"),
    (["serve", "run", "--host", "no host"], 2, "--api-key"),
    (["serve", "run", "--api-key", ""], 2, "API key"),
]  # fmt: skip


def snapshot(workspace: Path) -> dict[str, bytes]:
    files = (file for file in workspace.rglob("*") if file.is_file() and "cache" not in file.parts)
    return {str(file.relative_to(workspace)): file.read_bytes() for file in files}


@pytest.mark.parametrize(("argv", "code", "message"), MISTAKES, ids=[" ".join(row[0])[:70] for row in MISTAKES])
def test_a_mistake_is_one_line_on_stderr_and_changes_no_file(workspace, monkeypatch, capfd, argv, code, message):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(workspace / "cache"))
    before = snapshot(workspace)
    with pytest.raises(SystemExit) as exit_info:
        main(argv)
    stderr = capfd.readouterr().err
    last = stderr.strip().splitlines()[-1]
    assert exit_info.value.code == code, stderr
    assert "Traceback" not in stderr
    assert last.startswith("tokenloom: ")
    assert message in last
    assert len(last) < 500
    assert snapshot(workspace) == before


def test_json_output_is_one_object(workspace, monkeypatch, capfd):
    monkeypatch.chdir(workspace)
    for argv in (
        ["evaluate", "run", "--json"],
        ["generate", "run", "--max-new-tokens", "3", "--json"],
        ["info", "--json"],
    ):
        with pytest.raises(SystemExit) as exit_info:
            main(argv)
        assert exit_info.value.code == 0
        assert isinstance(json.loads(capfd.readouterr().out), dict)


def test_a_corrupt_checkpoint_that_is_skipped_is_named(workspace, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workspace / "run", "run")
    newest = Path("run/checkpoints/step-00000002/model.safetensors")
    newest.write_bytes(newest.read_bytes()[:-1])
    for argv in (["evaluate", "run", str(workspace / "good.txt")], ["generate", "run", "--max-new-tokens", "1"]):
        with pytest.raises(SystemExit) as exit_info:
            main(argv)
        assert exit_info.value.code == 0
        assert "step-00000002 is corrupt (model.safetensors has" in capfd.readouterr().err
