"""Copies for inference: the same logits in fp32, similar ones in bf16 and int8, and the original unchanged."""

import pytest
import torch
from torch import nn

from tokenloom.compute.runtime import choose_runtime
from tokenloom.errors import UsageError, WeightsError
from tokenloom.generation import inference_weights
from tokenloom.generation.engine import collect, generate
from tokenloom.generation.inference_weights import (
    FEW_ROWS,
    DynamicInt8Linear,
    Int8Linear,
    PrepackedLinear,
    copy_for_inference,
    round_to_int8,
)
from tokenloom.sampling_params import SamplingParams

IDS = torch.arange(30).view(2, 15)
GREEDY = SamplingParams(temperature=0.0)


def inference_copy(model, precision="fp32", quantize=None):
    return copy_for_inference(model, choose_runtime("cpu", precision), quantize)


@torch.no_grad()
@pytest.mark.parametrize("few_weights", [0, inference_weights._FEW_WEIGHTS], ids=["packed", "as they are"])
def test_in_fp32_the_logits_are_the_same_and_the_tokens_too(model, monkeypatch, few_weights):
    monkeypatch.setattr(inference_weights, "_FEW_WEIGHTS", few_weights)
    ready = inference_copy(model)
    torch.testing.assert_close(ready(IDS), model(IDS), rtol=1e-5, atol=1e-5)
    options = {"max_new_tokens": 20, "sampling": GREEDY, "seed": 0}
    expected = collect(generate(model, IDS[:, :5].tolist(), **options))
    for use_cache in (True, False):
        assert collect(generate(ready, IDS[:, :5].tolist(), **options, use_cache=use_cache)) == expected


# bf16 keeps 8 bits of a number; int8 steps are 1/127 of a row's largest weight. Over a few layers errors add up.
@torch.no_grad()
@pytest.mark.parametrize(("precision", "quantize", "error"), [("bf16", None, 0.03), ("bf16", "int8", 0.06)])
def test_rounded_weights_give_similar_logits(model, precision, quantize, error):
    expected, got = model(IDS), inference_copy(model, precision, quantize)(IDS).float()
    assert (got - expected).std() < error * expected.std()
    assert not torch.equal(got, expected)


@torch.no_grad()
def test_the_original_model_is_not_changed(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    model.train()
    inference_copy(model, "bf16", "int8")
    assert model.training
    assert [type(module) for module in model.modules()] == classes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_int8_weights_are_within_rounding_of_the_original(model_of):
    original = model_of("gpt2").h[0].mlp.c_fc.weight
    rounded, scale = round_to_int8(original)
    assert rounded.dtype == torch.int8
    # Half a step; a scale rounded down to bf16 may clip the largest by a 256th more.
    bound = original.abs().amax(dim=1, keepdim=True) * (0.5 / 127 + 1 / 256)
    assert ((rounded.float() * scale.float()[:, None] - original).abs() <= bound).all()


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, 2 * max(inference_weights._CONVERTED_ROWS.values())])
@pytest.mark.parametrize("inputs", [24, 48])
@pytest.mark.parametrize(
    "kind", ["bf16", "bf16 without fp16", "bf16 without oneDNN", "int8", "int8 without FBGEMM", "int8 without bf16"]
)
def test_products_are_close_for_any_number_of_rows(monkeypatch, kind, inputs, rows):
    random = torch.Generator().manual_seed(rows)
    linear = nn.Linear(inputs, 40)
    # Rows of different size, as the first token of a text has.
    x = torch.randn(1, rows, inputs, generator=random) * torch.logspace(-2, 2, rows)[:, None]
    if kind.endswith(("FBGEMM", "without bf16")):
        monkeypatch.setattr(DynamicInt8Linear, "is_available", lambda linear: False)
        monkeypatch.setattr(inference_weights, "has_fast_bf16", lambda device: kind.endswith("FBGEMM"))
    if kind.endswith("fp16"):
        monkeypatch.setattr(inference_weights, "_has_fbgemm", lambda: False)
    if kind.endswith("oneDNN"):
        monkeypatch.setattr(inference_weights, "_has_onednn", lambda dtype: False)
    parent = copy_for_inference(
        nn.Sequential(linear),
        choose_runtime("cpu", "bf16"),
        "int8" if kind.startswith("int8") else None,
    )
    expected = linear(x) - linear.bias
    error = (parent(x).float() - linear.bias - expected).std(dim=-1) / expected.std(dim=-1)
    # bf16 keeps 8 bits of inputs, weights and result, which includes the bias of up to 0.2; int8 steps are 1/127 of a
    # row's largest weight or input.
    tolerance = 0.02 + 0.004 / expected.std(dim=-1)
    assert (error < tolerance).all(), error


@torch.no_grad()
@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("gelu", [None, nn.GELU(), nn.GELU(approximate="tanh")], ids=["none", "exact", "tanh"])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 48), (192, 65), (700, 401)])
def test_products_in_fp32_are_those_of_the_layer(monkeypatch, inputs, outputs, gelu, has_onednn):
    if not has_onednn:
        monkeypatch.setattr(inference_weights, "_has_onednn", lambda dtype: False)
    random = torch.Generator().manual_seed(inputs)
    for bias in (True, False):
        linear = nn.Linear(inputs, outputs, bias=bias)
        ready = PrepackedLinear(linear, torch.float32, gelu)
        assert ready.prepacked == (has_onednn and inputs == 700 and torch.backends.mkldnn.is_available())
        for rows in (1, 2, FEW_ROWS, 17):
            x = torch.randn(1, rows, inputs, generator=random)
            expected = linear(x) if gelu is None else gelu(linear(x))
            torch.testing.assert_close(ready(x), expected, rtol=1e-5, atol=1e-5)  # sums in another order


@torch.no_grad()
def test_with_avx2_a_row_has_the_same_bits_alone_and_among_others():
    """So that the text of a sequence does not depend on those that are generated with it."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2" or not torch.backends.mkldnn.is_available():
        pytest.skip("oneDNN has other kernels here")
    random = torch.Generator().manual_seed(0)
    for inputs, outputs in ((700, 401), (768, 2304), (3072, 768)):
        ready = PrepackedLinear(nn.Linear(inputs, outputs), torch.float32)
        x = torch.randn(33, inputs, generator=random)
        alone = torch.cat([ready(row[None]) for row in x])
        for rows in (2, 3, 4, 5, 16, 33):
            assert torch.equal(ready(x[:rows]), alone[:rows])


def test_a_large_matrix_in_fp32_is_packed_once_and_a_small_one_is_not_copied():
    large, small = nn.Linear(768, 400), nn.Linear(64, 48)
    tensors = [value for value in vars(PrepackedLinear(large, torch.float32)).values() if torch.is_tensor(value)]
    assert sum(tensor.numel() for tensor in tensors) == large.weight.numel() + large.bias.numel()
    assert PrepackedLinear(small, torch.float32).weight.data_ptr() == small.weight.data_ptr()


def test_weights_on_another_device_are_not_packed():
    linear = nn.Linear(700, 401, device="meta")
    ready = PrepackedLinear(linear, torch.float32)
    assert not ready.prepacked
    assert ready(torch.empty(2, 700, device="meta")).shape == (2, 401)


@torch.no_grad()
def test_few_rows_in_bf16_are_more_exact_than_many(model_of):
    model = model_of("gpt2")
    ready = inference_copy(model, "bf16")
    if next(m for m in ready.modules() if isinstance(m, PrepackedLinear)).fp16 is None:
        pytest.skip("FBGEMM is not available")
    x = torch.randn(FEW_ROWS, 16, generator=torch.Generator().manual_seed(0))
    layer, exact = ready.h[0].attn.c_attn, model.h[0].attn.c_attn(x)
    few = (layer(x) - exact).abs().mean()
    many = (layer(x.repeat(2, 1)).float()[:FEW_ROWS] - exact).abs().mean()
    assert few < many / 4


@torch.no_grad()
@pytest.mark.parametrize(("precision", "quantize"), [("fp32", None), ("bf16", None), ("bf16", "int8")])
def test_layers_of_the_same_input_are_joined(model_of, precision, quantize):
    """The outputs of each are the same: every output has a row of weights, and in int8 a scale, of its own."""
    model = model_of("modern")
    ready = inference_copy(model, precision, quantize)
    x = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0))
    block, original = ready.h[1], model.h[1]
    for joined, layers in (
        (block.self_attn.joined, [getattr(original.self_attn, name) for name in original.self_attn.JOINABLE]),
        (block.mlp.joined, [original.mlp.gate_proj, original.mlp.up_proj]),
    ):
        alone = [
            copy_for_inference(nn.Sequential(layer), choose_runtime("cpu", precision), quantize) for layer in layers
        ]
        expected = torch.cat([layer(x) for layer in alone], dim=-1)
        # bf16 rounds to 8 bits; products of another size may sum in another order.
        torch.testing.assert_close(
            joined(x).float(), expected.float(), rtol=1e-2 if precision == "bf16" else 1e-5, atol=1e-5
        )
    assert not hasattr(block.self_attn, "q_proj")


def test_weights_beyond_the_range_of_fp16_stay_in_bf16():
    linear = nn.Linear(16, 4)
    with torch.no_grad():
        linear.weight[0, 0] = 1e6
        assert PrepackedLinear(linear, torch.bfloat16).fp16 is None


@torch.no_grad()
@pytest.mark.parametrize("layer", [DynamicInt8Linear, Int8Linear])
@pytest.mark.parametrize("rows", [1, 3])
def test_rows_with_nan_stay_nan_in_int8(layer, rows):
    linear = nn.Linear(16, 8)
    if layer is DynamicInt8Linear and not DynamicInt8Linear.is_available(linear):
        pytest.skip("the CPU has no VNNI instructions")
    x = torch.ones(rows, 16)
    x[0] = torch.nan
    result = layer(linear)(x)
    assert result[0].isnan().all()
    assert result[1:].isfinite().all()


def test_nan_is_reported_with_int8_weights(model):
    ready = inference_copy(model, "bf16", "int8")
    ready.wte.weight.fill_(torch.nan)
    for prompts in ([[1, 2]], [[1], [2]]):
        with pytest.raises(WeightsError, match="NaN"):
            collect(generate(ready, prompts, max_new_tokens=2, sampling=GREEDY, seed=0))


def test_an_unsupported_quantization_is_refused(model):
    with pytest.raises(UsageError, match="int4"):
        inference_copy(model, quantize="int4")
