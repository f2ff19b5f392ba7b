"""What a reference to a model stands for is decided by what is there, whatever its name."""

import shutil
from pathlib import Path

import pytest
import torch

from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers.bpe import train_bpe
from tokenloom.errors import CheckpointError
from tokenloom.model.gpt2 import GPT2
from tokenloom.weights.checkpoint import save_checkpoint
from tokenloom.weights.load import LoadedModel, load

pytest.importorskip("gguf")
TOKENIZER = train_bpe(300, ["all work and no play makes Jack a dull boy. "] * 9)
OPENAI = Path(__file__).parent / "openai-checkpoints" / "gpt2"
NAMES = [
    "exp.pt",
    "v1.gguf",
    "w.safetensors",
    "model@best",
    "gpt2",
    "openai:124M",
    "a b",
    "x.json",
    "hf:foo",
    "run.bin",
]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """One model in every form that a MODEL argument can have."""
    place = tmp_path_factory.mktemp("kinds")
    shape = {"vocab_size": TOKENIZER.vocab_size, "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16}
    model = GPT2(ModelConfig(family="gpt2", **shape), torch.Generator().manual_seed(1))
    save_checkpoint(place / "run" / "checkpoints", 3, model, TOKENIZER, state={})
    loaded = LoadedModel(model, TOKENIZER, place)
    shutil.copytree(place / "run" / "checkpoints" / "step-00000003", place / "checkpoint")
    api.export(loaded, place / "hf", format="hf", license="mit")
    api.export(loaded, place / "gguf.gguf", quantization="f32")
    api.export(loaded, place / "pth.pth")
    return place, model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["run", "checkpoint", "hf", "gguf.gguf", "pth.pth"])
def test_the_content_decides_whatever_the_name(kinds, tmp_path, monkeypatch, kind, name):
    place, model = kinds
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(place / kind)
    TOKENIZER.save(tmp_path)  # a .pth has none
    loaded = load(name)
    assert torch.equal(loaded.model.wte.weight, model.wte.weight)
    assert loaded.tokenizer.fingerprint == TOKENIZER.fingerprint


@pytest.mark.parametrize("name", ["exp.pt", "model@best", "openai:124M"])
def test_a_folder_of_openai_may_have_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OPENAI, name)
    with pytest.raises(CheckpointError, match=r"tokenizer has 50,257 tokens, but the model's vocabulary is 300"):
        load(name)


@pytest.mark.parametrize("name", ["exp@best", "exp@step-3", "exp.gguf"])
def test_the_checkpoints_of_a_run_with_such_a_name_can_be_selected(kinds, tmp_path, name):
    place, _ = kinds
    shutil.copytree(place / "run", tmp_path / name)
    assert load(f"{tmp_path / name}@step-3").path == tmp_path / name / "checkpoints" / "step-00000003"
    with pytest.raises(CheckpointError, match="no valid checkpoint @best"):
        load(f"{tmp_path / name}@best")


def test_a_safetensors_file_is_referred_to_its_folder(kinds):
    place, _ = kinds
    with pytest.raises(CheckpointError, match=f"Name its folder: {place / 'hf'}"):
        load(place / "hf" / "model.safetensors")


def test_a_local_folder_named_like_a_model_is_announced(kinds, tmp_path, monkeypatch):
    place, _ = kinds
    monkeypatch.chdir(tmp_path)
    Path("gpt2").symlink_to(place / "hf")
    assert load("gpt2").notices == ["using the local gpt2, not the model of that name"]
    assert load("./gpt2").notices == []


@pytest.mark.parametrize("name", ["exp.pt", "v1.gguf", "model@best"])
def test_every_command_accepts_a_run_with_such_a_name(kinds, tmp_path, monkeypatch, capsys, name):
    place, _ = kinds
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    shutil.copytree(place / "run", name)
    Path("text.txt").write_text("all work and no play makes Jack a dull boy\n" * 40)
    shape = ["--train.max-steps", "1", "--train.batch-size", "2", "--sample.max-new-tokens", "0"]
    for argv in (
        ["info", name],
        ["evaluate", name, "text.txt"],
        ["generate", name, "--max-new-tokens", "1"],
        ["inspect", name, "--text", "all work"],
        ["compare", name, name, "--text", "all work"],
        ["export", name, f"{name}-out"],
        ["train", "text.txt", "--init-from", name, "--out", "new", *shape],
    ):
        with pytest.raises(SystemExit) as left:
            main(argv)
        assert left.value.code == 0, capsys.readouterr().err
