"""Attention weights: rows that sum to 1, causal, and those with which the model itself computes."""

import threading

import pytest
import torch
from torch import nn

from tokenloom.compute.runtime import choose_runtime
from tokenloom.errors import UsageError
from tokenloom.generation.inference_weights import copy_for_inference
from tokenloom.model.attention_weights import attention_maps, attention_weights

IDS = torch.tensor([5, 17, 3, 3, 42, 8, 59, 0, 1, 2])


def attention_of(block: nn.Module) -> nn.Module:
    return getattr(block, "attn", None) or block.self_attn


def test_rows_sum_to_one_and_are_causal(model):
    for layer in range(model.config.n_layer):
        for head in range(model.config.n_head):
            weights = attention_weights(model, IDS, layer, head)
            assert weights.shape == (10, 10)
            assert torch.allclose(weights.sum(dim=-1), torch.ones(10))
            assert not weights.triu(1).any()
            assert (weights >= 0).all()
    assert attention_weights(model, IDS[:1], 0, 0).item() == 1


def test_maps_have_the_largest_weight_of_each_cell(model):
    maps = attention_maps(model, IDS, 4)  # cells of three tokens, the last one of one
    assert maps.shape == (2, model.config.n_head, 4, 4)
    for layer in range(2):
        for head in range(model.config.n_head):
            weights = attention_weights(model, IDS, layer, head)
            expected = [[weights[i : i + 3, j : j + 3].max() for j in range(0, 10, 3)] for i in range(0, 10, 3)]
            # fp32 products of one head and of all of them.
            assert torch.allclose(maps[layer, head], torch.tensor(expected), atol=1e-6)
    assert attention_maps(model, IDS, 32).shape[-1] == 10


def test_with_them_the_model_gives_the_same_output(model):
    """The output of attention, before its last projection, is the weights of each head times its values."""
    attention, seen = attention_of(model.h[1]), {}
    output = attention.c_proj if hasattr(attention, "c_proj") else attention.o_proj
    hooks = [
        attention.register_forward_pre_hook(lambda module, inputs: seen.update(v=module.project(*inputs[:-2])[2][0])),
        output.register_forward_pre_hook(lambda _, inputs: seen.update(y=inputs[0][0])),
    ]
    with torch.no_grad():
        model.hidden(IDS[None])
    for hook in hooks:
        hook.remove()
    H, group = model.config.n_head, model.config.n_head // model.config.kv_heads
    heads = [attention_weights(model, IDS, 1, head) @ seen["v"][head // group] for head in range(H)]
    # fp32, summed in a different order.
    assert torch.allclose(torch.cat(heads, dim=-1), seen["y"], atol=1e-5)


def test_heads_and_layers_differ(model):
    maps = [attention_weights(model, IDS, layer, head) for layer in range(2) for head in range(model.config.n_head)]
    assert all(not torch.allclose(a, b, atol=1e-4) for i, a in enumerate(maps) for b in maps[:i])


def test_the_model_is_not_changed(model):
    before = model(IDS[None])
    attention_weights(model.train(), IDS, 0, 0)
    assert model.training
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model.eval()(IDS[None]), before)


def test_prepacked_weights_give_the_same(model):
    prepacked = copy_for_inference(model, choose_runtime("cpu", "fp32"))
    # fp32 products of another layout.
    assert torch.allclose(attention_weights(prepacked, IDS, 1, 1), attention_weights(model, IDS, 1, 1), atol=1e-5)


def test_a_model_in_use_by_another_thread_is_not_disturbed(model):
    expected, other = attention_weights(model, IDS, 1, 0), IDS.flip(0)
    with torch.no_grad():
        logits, stop, results = model(other[None]), threading.Event(), []

    def use() -> None:
        while not stop.is_set():
            with torch.no_grad():
                results.append(torch.equal(model(other[None]), logits))

    thread = threading.Thread(target=use)
    thread.start()
    maps = [attention_weights(model, IDS, 1, 0) for _ in range(20)]
    stop.set()
    thread.join()
    assert all(torch.equal(one, expected) for one in maps)
    assert all(results)


@pytest.mark.parametrize(
    ("layer", "head", "tokens"), [(-1, 0, 5), (2, 0, 5), (0, -1, 5), (0, 4, 5), (0, 0, 0), (0, 0, 17)]
)
def test_what_the_model_does_not_have_is_refused(model, layer, head, tokens):
    with pytest.raises(UsageError):
        attention_weights(model, torch.zeros(tokens, dtype=torch.long), layer, head)
