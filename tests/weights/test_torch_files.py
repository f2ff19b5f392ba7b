"""PyTorch files of the book, Tokenloom, nanoGPT and Hugging Face; pickles that execute code are refused."""

import json
import os

import pytest
import torch

from tokenloom.book import GPTModel
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.weights.export import export_model
from tokenloom.weights.folder import read_folder, write_folder
from tokenloom.weights.huggingface import to_huggingface
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
    model = model_of("gpt2", tie_embeddings=True, gelu="exact")
    state = {f"_orig_mod.transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    state["_orig_mod.lm_head.weight"] = state.pop("_orig_mod.transformer.lm_head.weight")
    args = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 60, "bias": True, "dropout": 0.0}
    torch.save({"model": state, "model_args": args, "iter_num": 7, "best_val_loss": 2.0}, tmp_path / "ckpt.pt")
    again = read_torch_model(tmp_path / "ckpt.pt")[0].read()
    assert torch.equal(again(IDS), model(IDS))
    assert again.lm_head.weight is again.wte.weight


def nanogpt(bias, **model_args):
    """A checkpoint as nanoGPT's train.py writes it, and its logits for `IDS`, computed as in its model.py."""
    from torch.nn import functional as F

    V, C, n_head, n_layer, block_size = 50304, 64, 2, 2, 16
    random = torch.Generator().manual_seed(3)

    def weights(*shape):
        return 0.3 * torch.randn(shape, generator=random)

    state = {"transformer.wte.weight": weights(V, C), "transformer.wpe.weight": weights(block_size, C)}
    for i in range(n_layer):
        for name, shape in (("attn.c_attn", (3 * C, C)), ("attn.c_proj", (C, C)), ("mlp.c_fc", (4 * C, C)),
                            ("mlp.c_proj", (C, 4 * C)), ("ln_1", (C,)), ("ln_2", (C,))):  # fmt: skip
            state[f"transformer.h.{i}.{name}.weight"] = weights(*shape)
            if bias:
                state[f"transformer.h.{i}.{name}.bias"] = weights(shape[0])
    state["transformer.ln_f.weight"] = weights(C)
    if bias:
        state["transformer.ln_f.bias"] = weights(C)
    state["lm_head.weight"] = state["transformer.wte.weight"]

    def norm(x, name):
        return F.layer_norm(x, (C,), state[f"{name}.weight"], state.get(f"{name}.bias"), 1e-5)

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    x = state["transformer.wte.weight"][IDS] + state["transformer.wpe.weight"][: IDS.shape[1]]
    for i in range(n_layer):
        block = f"transformer.h.{i}"
        parts = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").split(C, dim=-1)
        q, k, v = (y.view(1, -1, n_head, C // n_head).transpose(1, 2) for y in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(y, f"{block}.attn.c_proj")
        hidden = F.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x = x + linear(hidden, f"{block}.mlp.c_proj")
    args = {"n_layer": n_layer, "n_head": n_head, "n_embd": C, "block_size": block_size, "bias": bias,
            "vocab_size": V, "dropout": 0.0, **model_args}  # fmt: skip
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    return {"model": compiled, "model_args": args, "iter_num": 7}, norm(x, "transformer.ln_f") @ state[
        "lm_head.weight"
    ].T


@pytest.mark.parametrize("bias", [False, True])
def test_nanogpts_checkpoints_are_read_with_and_without_biases(tmp_path, bias):
    content, expected = nanogpt(bias)
    torch.save(content, tmp_path / "ckpt.pt")
    loaded = load(tmp_path / "ckpt.pt")
    # Another order of the same products, at logits of some tens.
    torch.testing.assert_close(loaded.model(IDS), expected, rtol=0, atol=1e-4)
    assert loaded.tokenizer is load_tokenizer("gpt2")
    assert loaded.notices == [
        "ckpt.pt is from nanoGPT; assuming the exact GELU of its current version",
        "ckpt.pt has no tokenizer; assuming gpt2",
    ]


def test_a_model_with_the_exact_gelu_is_exported_only_where_it_computes_the_same(tmp_path):
    torch.save(nanogpt(bias=False)[0], tmp_path / "ckpt.pt")
    loaded = load(tmp_path / "ckpt.pt")
    for name in ("out.gguf", "out.pth"):
        with pytest.raises(WeightsError, match="exact GELU"):
            export_model(loaded, tmp_path / name, "gguf" if name == "out.gguf" else "book")
    export_model(loaded, tmp_path / "hf", "hf", license="mit")
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["activation_function"] == "gelu"
    assert torch.equal(load(tmp_path / "hf").model(IDS), loaded.model(IDS))


def test_a_file_without_some_of_its_biases_is_refused(tmp_path):
    content, _ = nanogpt(bias=True)
    del content["model"]["_orig_mod.transformer.ln_f.bias"]
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=r"lacks tensor ln_f\.bias"):
        load(tmp_path / "ckpt.pt")


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("has_config", [True, False])
def test_a_bin_of_hugging_face_may_be_named_directly(tmp_path, model_of, prefix, has_config):
    model = model_of("gpt2", vocab_size=50257, n_embd=128)  # heads of size 64
    config, tensors = to_huggingface(model.config, model.state_dict(), 50256)
    del config["tokenloom"]
    state = {prefix + name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    state |= {f"{prefix}h.{i}.attn.bias": torch.ones(1, 1, 16, 16) for i in range(2)}
    state |= {f"{prefix}h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    if has_config:
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert torch.equal(load(tmp_path).model(IDS), model(IDS))
    assert torch.equal(load(tmp_path / "pytorch_model.bin").model(IDS), model(IDS))


@pytest.mark.parametrize("change", [{"activation_function": "relu"}, {"n_inner": 100}, {"layer_norm_epsilon": 1e-6}])
def test_the_configuration_beside_a_bin_is_checked(tmp_path, model_of, change):
    model = model_of("gpt2", vocab_size=50257)
    config, tensors = to_huggingface(model.config, model.state_dict(), 50256)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(WeightsError, match=f"has {next(iter(change))} .* not supported. Supported"):
            load(path)


def test_integers_are_not_read_as_weights(tmp_path, model_of):
    model = model_of("gpt2")
    state = {name: tensor.to(torch.int8) if "c_fc" in name else tensor for name, tensor in model.state_dict().items()}
    torch.save({"model_state_dict": state, "tokenloom": model.config.model_dump()}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"c_fc\.\w+ cannot be read: it contains torch\.int8"):
        read_torch_model(tmp_path / "model.pth")[0].read()


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
