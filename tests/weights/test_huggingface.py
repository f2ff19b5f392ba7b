"""Checkpoints of a GPT-2 open in transformers, and transformers' folders open here."""

import json
import os

import pytest
import torch

from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers import load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.bpe import train_bpe
from tokenloom.errors import CheckpointError, TokenizerError, WeightsError
from tokenloom.model.gpt2 import GPT2
from tokenloom.weights.checkpoint import save_checkpoint
from tokenloom.weights.export import export_model
from tokenloom.weights.folder import read_folder, write_folder
from tokenloom.weights.huggingface import from_huggingface, to_huggingface
from tokenloom.weights.lazy_tensors import LazyModel
from tokenloom.weights.load import load

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers reads only local files
transformers = pytest.importorskip("transformers")

TEXT = "Every effort moves you. The quick brown fox jumps over the lazy dog; 1234 times, isn't it? Grüße, 世界 👋\n"
SHAPES = {
    "small": {"block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 16},
    "deep": {"block_size": 32, "n_layer": 5, "n_head": 1, "n_embd": 8},
    "wide": {"block_size": 20, "n_layer": 1, "n_head": 6, "n_embd": 48},
}
# The documented tolerance in fp32: the same products in another layout; the logits here are some tens.
CLOSE = {"rtol": 0, "atol": 1e-4}


def wild_gpt2(**options) -> GPT2:
    """A GPT-2 with all weights, biases included, far from their initial values, so that each affects the logits."""
    random = torch.Generator().manual_seed(7)
    model = GPT2(ModelConfig(family="gpt2", **options), random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return model.eval()


def ids_for(model, count=3):
    config = model.config
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, config.vocab_size, (count, config.block_size), generator=random)


def transformers_model(folder):
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not any(report.values()), report  # no missing or unexpected keys, no mismatched shapes
    return model.eval()


def transformers_gpt2(**options):
    torch.manual_seed(0)
    sizes = {"n_positions": 12, "n_layer": 2, "n_head": 2, "n_embd": 16, "bos_token_id": 0, "eos_token_id": 0}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=257, **sizes, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return model


# Written here, opened by transformers


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_transformers_opens_a_checkpoint(tmp_path, shape, tied, qkv_bias):
    tokenizer = make_tokenizer("byte")
    model = wild_gpt2(vocab_size=tokenizer.vocab_size, tie_embeddings=tied, qkv_bias=qkv_bias, **SHAPES[shape])
    path = save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path
    reference = transformers_model(path)
    ids = ids_for(model)
    expected = model(ids)
    assert expected.std() > 0.5
    torch.testing.assert_close(reference(ids).logits, expected, **CLOSE)
    assert sum(parameter.numel() for parameter in reference.parameters()) == (
        sum(parameter.numel() for parameter in model.parameters())
        + (0 if qkv_bias else 3 * model.config.n_embd * model.config.n_layer)
    )


@torch.no_grad()
def test_transformers_generates_the_same_tokens(tmp_path):
    tokenizer = make_tokenizer("byte")
    model = wild_gpt2(vocab_size=257, tie_embeddings=False, **SHAPES["deep"])
    reference = transformers_model(save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path)
    ids = torch.tensor([tokenizer.encode("Every")])
    written = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)
    ours = ids
    while ours.shape[1] < written.shape[1]:
        ours = torch.cat([ours, model(ours)[:, -1:].argmax(-1)], dim=1)
    assert ours.shape[1] > 10
    assert torch.equal(ours, written)


@pytest.mark.parametrize("kind", ["gpt2", "byte", "bpe:300"])
def test_transformers_opens_the_tokenizer_and_gives_the_same_ids(tmp_path, kind):
    tokenizer = make_tokenizer(kind, [TEXT * 20])
    model = wild_gpt2(vocab_size=tokenizer.vocab_size, **SHAPES["small"])
    path = save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path
    reference = transformers.AutoTokenizer.from_pretrained(path)
    for text in (TEXT, " two  spaces\tand\r\ntabs ", "a<|endoftext|>b", ""):
        assert reference.encode(text) == tokenizer.encode(text)
        assert reference.decode(reference.encode(text)) == text
    assert reference.eos_token_id == tokenizer.eot_id == transformers_model(path).config.eos_token_id


def test_dropout_and_context_are_exported(tmp_path):
    model = wild_gpt2(vocab_size=257, dropout=0.25, **SHAPES["small"])
    config = transformers_model(save_checkpoint(tmp_path, 1, model, make_tokenizer("byte"), state={}).path).config
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)
    assert config.n_positions == config.max_position_embeddings == 12


# Written by transformers, opened here


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_that_transformers_wrote_is_read(tmp_path, tied):
    reference = transformers_gpt2(tie_word_embeddings=tied)
    reference.save_pretrained(tmp_path)
    ours = read_folder(tmp_path).read()
    ids = ids_for(ours)
    torch.testing.assert_close(ours(ids), reference(ids).logits, **CLOSE)
    assert (ours.lm_head.weight is ours.wte.weight) == tied
    assert ours.config == ModelConfig(
        family="gpt2", vocab_size=257, dropout=0.1, tie_embeddings=tied, **SHAPES["small"]
    )


@torch.no_grad()
def test_half_precision_weights_are_converted_to_fp32(tmp_path):
    reference = transformers_gpt2().to(torch.bfloat16)
    reference.save_pretrained(tmp_path)
    ours = read_folder(tmp_path).read()
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert torch.equal(ours.wte.weight, reference.transformer.wte.weight.float())


def test_a_folder_that_transformers_wrote_is_loaded_with_its_tokenizer(tmp_path):
    tokenizer = make_tokenizer("byte")
    tokenizer.save(tmp_path / "saved")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "reference")
    transformers_gpt2().save_pretrained(tmp_path / "reference")
    loaded = load(tmp_path / "reference")
    assert loaded.path == tmp_path / "reference"
    assert loaded.tokenizer.encode(TEXT) == tokenizer.encode(TEXT)


@torch.no_grad()
def test_a_checkpoint_survives_a_round_trip_through_transformers(tmp_path):
    model = wild_gpt2(vocab_size=257, tie_embeddings=False, qkv_bias=False, **SHAPES["small"])
    reference = transformers_model(save_checkpoint(tmp_path, 1, model, make_tokenizer("byte"), state={}).path)
    reference.save_pretrained(tmp_path / "back")
    again = read_folder(tmp_path / "back").read()
    assert again.config == model.config
    assert torch.equal(again(ids_for(model)), model(ids_for(model)))


@torch.no_grad()
def test_biases_trained_in_transformers_are_kept(tmp_path):
    """The saved configuration has no biases, but the weights do."""
    model = wild_gpt2(vocab_size=257, qkv_bias=False, **SHAPES["small"])
    reference = transformers_model(save_checkpoint(tmp_path, 1, model, make_tokenizer("byte"), state={}).path)
    reference.transformer.h[1].attn.c_attn.bias += 0.5
    reference.save_pretrained(tmp_path / "tuned")
    ours = read_folder(tmp_path / "tuned").read()
    assert ours.config.qkv_bias
    torch.testing.assert_close(ours(ids_for(ours)), reference(ids_for(ours)).logits, **CLOSE)


# The mapping


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_conversion_is_inverted_exactly(tied, qkv_bias):
    model = wild_gpt2(vocab_size=50, tie_embeddings=tied, qkv_bias=qkv_bias, **SHAPES["small"])
    state = model.state_dict()
    config, tensors = to_huggingface(model.config, state, eot_id=3)
    assert "lm_head.weight" in tensors or tied
    assert (config["eos_token_id"], config["bos_token_id"]) == (3, 3)
    again, back = from_huggingface(json.loads(json.dumps(config)), tensors)
    assert again == model.config
    read = LazyModel(again, back, "memory").read().state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_names_without_prefix_and_stored_masks_are_read():
    """The first exports of GPT-2 on the Hub have them."""
    model = wild_gpt2(vocab_size=50, **SHAPES["small"])
    config, tensors = to_huggingface(model.config, model.state_dict(), eot_id=0)
    del config["tokenloom"]
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 12, 12) for i in range(2)}
    old |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    again, state = from_huggingface(config, old)
    assert again == model.config.model_copy(update={"dropout": 0.0})
    assert state.keys() | {"lm_head.weight"} == model.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llama"}, 'architecture "llama" is not supported'),
        ({"n_layer": None}, "has no 'n_layer'"),
        ({"activation_function": "relu"}, "activation_function 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"scale_attn_weights": False}, "scale_attn_weights False"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"n_inner": 128}, r"n_inner 128, which is not supported\. Supported: 64"),
        ({"activation_function": "gelu_10"}, "activation_function 'gelu_10'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ],
)
def test_a_gpt2_with_unsupported_settings_is_refused(change, said):
    """Its weights would load, but its logits would be wrong."""
    config = transformers_gpt2().config.to_dict() | change
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(WeightsError, match=said):
        from_huggingface(config, {})


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {"n_inner": 64},
        {"reorder_and_upcast_attn": True},
        {"activation_function": "gelu_pytorch_tanh"},
        {"activation_function": "gelu"},
    ],
)
def test_settings_that_compute_the_same_are_read(tmp_path, settings):
    reference = transformers_gpt2(attn_implementation="eager", **settings)
    reference.save_pretrained(tmp_path)
    ours = read_folder(tmp_path).read()
    torch.testing.assert_close(ours(ids_for(ours)), reference(ids_for(ours)).logits, **CLOSE)


@torch.no_grad()
def test_a_head_that_differs_from_the_embedding_is_kept(tmp_path):
    """As in transformers, whatever tie_word_embeddings says."""
    from safetensors.torch import load_file, save_file

    transformers_gpt2().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].flip(0).contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = read_folder(tmp_path).read()
    torch.testing.assert_close(ours(ids_for(ours)), reference(ids_for(ours)).logits, **CLOSE)


def test_a_model_that_was_resized_in_transformers_is_read(tmp_path):
    """The settings of Hugging Face are the current ones; Tokenloom's were exported before."""
    model = wild_gpt2(vocab_size=257, **SHAPES["small"])
    path = save_checkpoint(tmp_path, 1, model, make_tokenizer("byte"), state={}).path
    reference = transformers_model(path)
    reference.resize_token_embeddings(260)
    reference.save_pretrained(tmp_path / "resized")
    assert read_folder(tmp_path / "resized").read().config.vocab_size == 260


def test_a_folder_without_tokenizer_files_and_gpt2s_vocabulary_gets_gpt2s_tokenizer(tmp_path):
    wild_gpt2_config = {"vocab_size": 50257, **SHAPES["small"]}
    write_folder(tmp_path, wild_gpt2(**wild_gpt2_config), eot_id=50256)
    loaded = load(tmp_path)
    assert loaded.tokenizer is load_tokenizer("gpt2")
    assert loaded.notices == [f"{tmp_path.name} has no tokenizer; assuming gpt2"]
    (tmp_path / "added_tokens.json").write_text('{"<|user|>": 50257}')
    with pytest.raises(TokenizerError):
        load(tmp_path)
    write_folder(tmp_path, wild_gpt2(**{**wild_gpt2_config, "vocab_size": 300}), eot_id=0)
    (tmp_path / "added_tokens.json").unlink()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        load(tmp_path)


def test_an_exported_folder_keeps_its_own_start_and_end_tokens(tmp_path):
    tokenizer = train_bpe(300, [TEXT * 20])
    tokenizer.save(tmp_path / "in")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "in")
    theirs.add_special_tokens({"bos_token": "<|start|>", "eos_token": "<|end|>"})
    theirs.save_pretrained(tmp_path / "in")
    write_folder(tmp_path / "in", wild_gpt2(vocab_size=len(theirs), **SHAPES["small"]), eot_id=0)
    loaded = load(tmp_path / "in")
    assert (loaded.tokenizer.bos_id, loaded.tokenizer.eot_id) == (theirs.bos_token_id, theirs.eos_token_id)
    export_model(loaded, tmp_path / "out", "hf", license="mit")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    for exported in (again, config):
        assert (exported.bos_token_id, exported.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert load(tmp_path / "out").tokenizer.bos_id == theirs.bos_token_id


@pytest.mark.parametrize("name", ["transformer.h.1.mlp.c_fc.bias", "transformer.wte.weight"])
def test_a_missing_tensor_is_named(tmp_path, name):
    from safetensors.torch import load_file, save_file

    transformers_gpt2().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=name.removeprefix("transformer.")):
        read_folder(tmp_path).read()
