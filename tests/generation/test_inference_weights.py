"""Copies for inference: the same logits in fp32, similar ones in bf16 and int8, and the original unchanged."""

import pytest
import torch

from tokenloom.compute.runtime import choose_runtime
from tokenloom.errors import UsageError
from tokenloom.generation.engine import collect, generate
from tokenloom.generation.inference_weights import copy_for_inference
from tokenloom.sampling_params import SamplingParams

IDS = torch.arange(30).view(2, 15)
GREEDY = SamplingParams(temperature=0.0)


def inference_copy(model, precision="fp32", quantize=None):
    return copy_for_inference(model, choose_runtime("cpu", precision), quantize)


@torch.no_grad()
def test_in_fp32_the_logits_are_the_same_and_the_tokens_too(model):
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
    model = model_of("gpt2")
    linear = inference_copy(model, "bf16", "int8").h[0].mlp.c_fc
    assert linear.weight.dtype == torch.int8
    restored = linear.weight.float() * linear.scale.float()[:, None]
    original = model.h[0].mlp.c_fc.weight
    # Half a step; a scale rounded down to bf16 may clip the largest by a 256th more.
    bound = original.abs().amax(dim=1, keepdim=True) * (0.5 / 127 + 1 / 256)
    assert ((restored - original).abs() <= bound).all()


def test_an_unsupported_quantization_is_refused(model):
    with pytest.raises(UsageError, match="int4"):
        inference_copy(model, quantize="int4")
