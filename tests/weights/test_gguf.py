"""GGUF files are read back, here and by the gguf package; what the format cannot represent is refused."""

import json

import numpy as np
import pytest
import torch

from tokenloom import api
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.data.tokenizers.added_tokens import extend_tokenizer
from tokenloom.data.tokenizers.bpe import train_bpe
from tokenloom.errors import CheckpointError, UsageError, WeightsError
from tokenloom.weights.load import LoadedModel, load

gguf = pytest.importorskip("gguf")
IDS = torch.arange(16)[None]
PAIRS = train_bpe(300, ["all work and no play makes Jack a dull boy. "] * 9)


@pytest.fixture
def loaded(model_of, tmp_path):
    def make(tokenizer=PAIRS, family="gpt2", padding=0, **changes):
        model = model_of(family, vocab_size=tokenizer.vocab_size + padding, **changes)
        return LoadedModel(model, tokenizer, tmp_path)

    return make


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "shape",
    [
        {"family": "gpt2", "qkv_bias": True},
        {"family": "gpt2", "qkv_bias": False},
        {"family": "modern"},
        {"family": "modern", "rope_theta": 1e6, "norm_eps": 1e-5, "n_kv_head": 1},
    ],
)
def test_f32_is_restored_bit_for_bit(loaded, tmp_path, tied, shape):
    before = loaded(extend_tokenizer(PAIRS, ["<|user|>"]), padding=5, tie_embeddings=tied, **shape)
    assert api.export(before, tmp_path / "model.gguf", quantization="f32") == []
    after = load(tmp_path / "model.gguf")
    assert after.model.config == before.model.config
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], tensor), name
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


# f16 has 11 significant bits; q8_0 has steps of 1/127 of the largest of 32 values, a scale that is itself f16.
@pytest.mark.parametrize(("quantization", "error"), [("f16", 2**-11), ("q8_0", 0.5 / 127 + 2**-11)])
@pytest.mark.parametrize("shape", [{}, {"family": "modern", "head_dim": 8, "n_inner": 96}])
def test_quantized_weights_are_within_tolerance_and_the_rest_is_exact(loaded, tmp_path, quantization, error, shape):
    before = loaded(n_embd=64, **shape)
    api.export(before, tmp_path / "model.gguf", format="gguf", quantization=quantization)
    after = load(tmp_path / "model.gguf").model.state_dict()
    for name, tensor in before.model.state_dict().items():
        if tensor.ndim == 2 and name != "wpe.weight":
            assert (after[name] - tensor).abs().max() <= error * tensor.abs().max()
            assert not torch.equal(after[name], tensor)
        else:
            assert torch.equal(after[name], tensor)


def test_the_gguf_package_reads_what_llama_cpp_requires(loaded, tmp_path):
    before = loaded(qkv_bias=False)
    api.export(before, tmp_path / "model.gguf", quantization="f32")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "gpt2"
    assert (fields["gpt2.context_length"], fields["gpt2.attention.head_count"]) == (16, 2)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert len(fields["tokenizer.ggml.tokens"]) == PAIRS.vocab_size
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    expected_names = {gguf.TENSOR_NAMES[kind].split(".")[-1] for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GPT2]}
    assert {name.split(".")[-2] for name in tensors} == expected_names
    expected = before.model.h[1].attn.c_attn.weight.detach().numpy()
    np.testing.assert_array_equal(tensors["blk.1.attn_qkv.weight"].data, expected)
    assert not tensors["blk.1.attn_qkv.bias"].data.any()


def test_qwen3_has_the_tensors_and_fields_of_the_gguf_package(loaded, tmp_path):
    api.export(loaded(family="modern", rope_theta=1e6), tmp_path / "model.gguf", quantization="f32")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "qwen3"
    assert (fields["qwen3.attention.head_count"], fields["qwen3.attention.head_count_kv"]) == (4, 2)
    assert (fields["qwen3.attention.key_length"], fields["qwen3.rope.freq_base"]) == (6, 1e6)
    assert fields["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    names = {gguf.TENSOR_NAMES[kind].split(".")[-1] for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.QWEN3]}
    assert {tensor.name.split(".")[-2] for tensor in reader.tensors} == names - {"rope_freqs"}  # for other frequencies


def test_gpt2s_tokenizer_is_recognized(loaded, tmp_path):
    api.export(loaded(load_tokenizer("gpt2")), tmp_path / "model.gguf")
    assert load(tmp_path / "model.gguf").tokenizer is load_tokenizer("gpt2")


@pytest.mark.parametrize("family", ["gpt2", "modern"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_converted_by_llama_cpp_is_read(loaded, tmp_path, monkeypatch, family, tied):
    before = loaded(family=family, tie_embeddings=tied)
    monkeypatch.setattr("tokenloom.weights.gguf._CONFIG", "other.config")
    api.export(before, tmp_path / "model.gguf", quantization="f32")
    monkeypatch.undo()
    after = load(tmp_path / "model.gguf")
    assert torch.equal(after.model(IDS), before.model(IDS))


def edit(path, out, **changes):
    """Copy a GGUF file with some fields changed, or removed if their value is None."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, "gpt2")
    types = gguf.GGUFValueType
    for name, field in reader.fields.items():
        if name in changes or name.startswith("GGUF.") or name == "general.architecture":
            continue
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for name, value in changes.items():
        kind = {bool: types.BOOL, int: types.UINT32, float: types.FLOAT32, list: types.ARRAY}[type(value)]
        of = None if not isinstance(value, list) else types.STRING if isinstance(value[0], str) else types.INT32
        writer.add_key_value(name, value, kind, of)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpt2.attention.layer_norm_epsilon", 1e-6),
        ("gpt2.feed_forward_length", 63),
        ("gpt2.attention.head_count_kv", 1),
        ("gpt2.attention.causal", False),
        ("gpt2.attn_logit_softcapping", 30.0),
    ],
)
def test_settings_that_change_the_computation_are_refused(loaded, tmp_path, name, value):
    api.export(loaded(), tmp_path / "model.gguf")
    edit(tmp_path / "model.gguf", tmp_path / "other.gguf", **{name: value})
    with pytest.raises(WeightsError, match=f"other.gguf has {name} .* not supported"):
        load(tmp_path / "other.gguf")


def test_a_file_keeps_its_own_end_token_and_unused_ids(loaded, tmp_path):
    api.export(loaded(padding=3), tmp_path / "model.gguf", quantization="f32")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    end = PAIRS.vocab_size
    tokens[end - 1 :] = ["<|im_start|>", "[unused]", "<tool>", "<|im_end|>"]
    types[end - 1 :] = [3, 5, 4, 3]
    changes = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    changes |= {"tokenizer.ggml.eos_token_id": end + 2, "tokenizer.ggml.bos_token_id": end - 1}
    edit(tmp_path / "model.gguf", tmp_path / "other.gguf", **changes)
    after = load(tmp_path / "other.gguf")
    assert (after.tokenizer.eot_text, after.tokenizer.eot_id, after.tokenizer.bos_id) == (
        "<|im_end|>",
        end + 2,
        end - 1,
    )
    text = "<|im_start|>all work<tool><|im_end|>"
    assert after.tokenizer.encode(text) == [end - 1, *PAIRS.encode("all work"), end + 1, end + 2]
    assert after.tokenizer.decode(after.tokenizer.encode(text)) == text
    api.export(after, tmp_path / "again.gguf", quantization="f32")
    again = gguf.GGUFReader(tmp_path / "again.gguf").fields
    for name, value in changes.items():
        expected = [token if token != "[unused]" else f"[PAD{end}]" for token in tokens] if "tokens" in name else value
        assert again[name].contents() == expected
    assert load(tmp_path / "again.gguf").tokenizer.encode(text) == after.tokenizer.encode(text)
    api.export(after, tmp_path / "hf", license="mit")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"]) == (end + 2, end - 1)
    assert load(tmp_path / "hf").tokenizer.encode(text) == after.tokenizer.encode(text)


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_a_tokenizer_that_gguf_cannot_represent_is_refused(loaded, tmp_path, family):
    with pytest.raises(WeightsError, match="cannot be exported as gguf"):
        api.export(loaded(load_tokenizer("byte"), family), tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_unsupported_values_widths_and_options_are_refused(loaded, tmp_path):
    before = loaded()
    with pytest.raises(WeightsError, match="multiple of 32"):
        api.export(before, tmp_path / "model.gguf", quantization="q8_0")
    before.model.wte.weight.data[3, 3] = 7e4
    with pytest.raises(WeightsError, match="too large for f16"):
        api.export(before, tmp_path / "model.gguf")
    with pytest.raises(WeightsError, match='"q4" is not supported'):
        api.export(before, tmp_path / "model.gguf", quantization="q4")
    with pytest.raises(UsageError, match="applies only to gguf"):
        api.export(before, tmp_path / "model", quantization="f16")
    with pytest.raises(UsageError, match=r"end in \.gguf"):
        api.export(before, tmp_path / "model", format="gguf")
    assert not list(tmp_path.iterdir())


def test_a_corrupt_file_is_named(loaded, tmp_path):
    api.export(loaded(), tmp_path / "model.gguf")
    content = (tmp_path / "model.gguf").read_bytes()
    for size in (0, 3, 20, 1000, len(content) // 2, len(content) - 5000):
        (tmp_path / "short.gguf").write_bytes(content[:size])
        with pytest.raises((WeightsError, CheckpointError), match=r"short\.gguf"):
            load(tmp_path / "short.gguf")
    (tmp_path / "other.gguf").write_bytes(content.replace(b"gpt2", b"gptX"))
    with pytest.raises(WeightsError, match=r"other\.gguf"):
        load(tmp_path / "other.gguf")
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / "none.gguf")
