"""Layers without initial values do not consume random numbers."""

import torch

from tokenloom.model.layers import embedding, linear


def test_creating_layers_does_not_consume_random_numbers():
    state = torch.get_rng_state()
    linear(3, 4), embedding(5, 6)
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_have_their_shapes_and_need_gradients():
    assert linear(3, 4).weight.shape == (4, 3)
    assert linear(3, 4, bias=False).bias is None
    assert embedding(5, 6).weight.shape == (5, 6)
    assert linear(3, 4).weight.requires_grad
    assert embedding(5, 6).weight.requires_grad


def test_layers_are_created_on_the_default_device():
    with torch.device("meta"):
        assert linear(3, 4).weight.is_meta
        assert embedding(5, 6).weight.is_meta
