"""Counts from the configuration match the model itself."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokenloom.config import Config, ModelConfig
from tokenloom.config_files import preset_names, read_preset
from tokenloom.model import build
from tokenloom.model.flops import count_parameters, forward_flops, training_flops_per_token

SHAPE = {"vocab_size": 70, "block_size": 12, "n_embd": 24, "n_head": 4}
CONFIGS = {
    "gpt2": ModelConfig(family="gpt2", n_layer=3, **SHAPE),
    "gpt2-untied-no-bias": ModelConfig(family="gpt2", n_layer=2, tie_embeddings=False, qkv_bias=False, **SHAPE),
    "modern": ModelConfig(n_layer=3, **SHAPE),
    "modern-with-own-widths": ModelConfig(
        n_layer=2, n_kv_head=2, head_dim=10, n_inner=56, tie_embeddings=False, **SHAPE
    ),
}
# Number of parameters according to their authors and the book.
PUBLISHED = {
    "book-124m": 162_419_712,
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1558m": 1_557_611_200,
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def counted_flops(run) -> int:
    # On a CPU the counter only counts the matrix products of the unfused implementation of attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_parameters_are_those_of_the_model(config):
    assert count_parameters(config) == sum(parameter.numel() for parameter in build(config).parameters())


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_models_have_their_published_number_of_parameters(name):
    assert count_parameters(Config.of(read_preset(name)).model) == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(set(preset_names()) - set(PUBLISHED)))
def test_a_preset_can_be_counted_without_allocating_it(name):
    model = Config.of(read_preset(name), {"model": {"vocab_size": 50257}}).model
    assert count_parameters(model) > 1_000_000


@pytest.mark.parametrize("T", [None, 1, 5])
def test_flops_of_a_forward_pass_are_those_that_torch_counts(config, T):
    model = build(config).eval()
    ids = torch.zeros(1, T or config.block_size, dtype=torch.long)
    with torch.no_grad():
        assert forward_flops(config, T) == counted_flops(lambda: model(ids))


def test_flops_are_proportional_to_the_batch_size(config):
    model = build(config).eval()
    ids = torch.zeros(3, config.block_size, dtype=torch.long)
    with torch.no_grad():
        assert counted_flops(lambda: model(ids)) == 3 * forward_flops(config)


def test_training_costs_three_forward_passes(config):
    model, ids = build(config), torch.zeros(1, config.block_size, dtype=torch.long)
    counted = counted_flops(lambda: model.loss(ids, ids).backward())
    assert training_flops_per_token(config) * config.block_size == counted
