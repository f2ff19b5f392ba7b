"""PyTorch files of the book, Tokenloom, nanoGPT and Hugging Face; pickles that execute code are refused."""

import json
import os

import pytest
import torch

from tokenloom.book import GPTModel
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.weights.folder import read_folder, write_folder
from tokenloom.weights.load import load
from tokenloom.weights.torch_files import read_torch_model

SMALL = {
    "vocab_size": 50257,
    "context_length": 16,
    "emb_dim": 64,
    "n_heads": 1,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
IDS = torch.arange(12)[None]


@pytest.fixture
def book_model():
    torch.manual_seed(1)
    return GPTModel(SMALL).eval()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model_state_dict": s, "optimizer_state_dict": {}}])
def test_the_books_files_are_read(tmp_path, book_model, wrap):
    torch.save(wrap(book_model.state_dict()), tmp_path / "model.pth")
    loaded = load(tmp_path / "model.pth")
    assert torch.equal(loaded.model(IDS), book_model(IDS))
    assert loaded.tokenizer.fingerprint == load_tokenizer("gpt2").fingerprint
    assert len(loaded.notices) == 2  # about the number of heads and the tokenizer


@pytest.mark.parametrize("settings", [{"n_head": 4}, {"n_heads": 4}, {"tokenloom": {"n_head": 4}}])
def test_the_number_of_heads_is_read_from_a_config_file(tmp_path, settings):
    torch.manual_seed(1)
    model = GPTModel({**SMALL, "n_heads": 4}).eval()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    stored, notices = read_torch_model(tmp_path / "model.pth")
    assert torch.equal(stored.read()(IDS), model(IDS))
    assert notices == []


def test_an_unknown_number_of_heads_is_reported(tmp_path):
    torch.save(GPTModel({**SMALL, "emb_dim": 48}).state_dict(), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="number of attention heads"):
        read_torch_model(tmp_path / "model.pth")


def test_weights_of_a_compiled_or_wrapped_nanogpt_are_read(tmp_path, model_of):
    model = model_of("gpt2", tie_embeddings=True)
    state = {f"_orig_mod.transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    state["_orig_mod.lm_head.weight"] = state.pop("_orig_mod.transformer.lm_head.weight")
    args = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 60, "bias": True, "dropout": 0.0}
    torch.save({"model": state, "model_args": args, "iter_num": 7, "best_val_loss": 2.0}, tmp_path / "ckpt.pt")
    again = read_torch_model(tmp_path / "ckpt.pt")[0].read()
    assert torch.equal(again(IDS), model(IDS))
    assert again.lm_head.weight is again.wte.weight


def test_both_families_are_restored(tmp_path, model):
    content = {"model_state_dict": model.state_dict(), "tokenloom": model.config.model_dump()}
    torch.save(content, tmp_path / "model.pth")
    stored, notices = read_torch_model(tmp_path / "model.pth")
    assert stored.config == model.config
    assert notices == []
    assert torch.equal(stored.read()(IDS), model(IDS))


@pytest.mark.parametrize("shards", [1, 2])
def test_hugging_faces_bin_files_are_read(tmp_path, model_of, shards):
    from safetensors.torch import load_file

    model = model_of("gpt2")
    write_folder(tmp_path, model, eot_id=0)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        places = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(tensors)}
        for file in set(places.values()):
            torch.save({n: t for n, t in tensors.items() if places[n] == file}, tmp_path / file)
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert torch.equal(read_folder(tmp_path).read()(IDS), model(IDS))


class Exploit:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return (os.mkdir, (str(self.proof),))


@pytest.mark.parametrize("name", ["model.pth", "pytorch_model.bin"])
def test_a_pickle_that_executes_code_is_refused_and_not_executed(tmp_path, book_model, name):
    proof = tmp_path / "executed"
    torch.save({**book_model.state_dict(), "exploit": Exploit(proof)}, tmp_path / name)
    with pytest.raises(WeightsError, match="--trust"):
        load(tmp_path / name)
    assert not proof.exists()


def test_a_pickle_of_custom_classes_is_read_only_if_trusted(tmp_path, model):
    content = {"model_state_dict": model.state_dict(), "tokenloom": model.config.model_dump(), "at": CustomClass()}
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="--trust"):
        read_torch_model(tmp_path / "model.pth")
    stored, _ = read_torch_model(tmp_path / "model.pth", trust=True)
    assert torch.equal(stored.read()(IDS), model(IDS))


class CustomClass:
    """A harmless object that is not a tensor."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains a list"),
        ({}, "it is empty"),
        ({"a": 1}, "'a' is not a tensor"),
        ({"a": torch.ones(2)}, "has no wte.weight"),
        ({"tok_emb.weight": torch.ones(2, 2), "head": torch.ones(2)}, "head is not a tensor of the book"),
    ],
)
def test_what_is_not_a_model_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=message):
        read_torch_model(tmp_path / "model.pth")


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 and then nothing"])
def test_a_corrupt_file_is_refused(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="model.pth"):
        read_torch_model(tmp_path / "model.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "model.pth")
