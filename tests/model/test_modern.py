"""The modern family computes what transformers' Qwen3 computes, and starts from the documented weights."""

import math

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tokenloom.config import ModelConfig
from tokenloom.errors import ConfigError
from tokenloom.model.modern import Modern, Rotary
from tokenloom.weights.huggingface_qwen3 import to_huggingface

SMALL = ModelConfig(vocab_size=50, block_size=8, n_layer=3, n_head=2, n_embd=16, tie_embeddings=False)


def ids_of(*shape, seed=0):
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def new(**changes):
    return Modern(SMALL.model_copy(update=changes), torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", [{}, {"n_kv_head": 4}, {"n_kv_head": 1, "head_dim": 8}, {"rope_theta": 1e6}])
def test_logits_are_those_of_transformers(model_of, shape, tied):
    model, ids = model_of("modern", tie_embeddings=tied, **shape), ids_of(2, 16)
    settings, tensors = to_huggingface(model.config, model.state_dict(), eot_id=0)
    theirs = Qwen3ForCausalLM(Qwen3Config(**settings)).eval()
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert missing == (["lm_head.weight"] if tied else [])
    assert unexpected == []
    theirs.tie_weights()
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=0, atol=1e-4)  # fp32, logits of a few units


def test_an_untrained_block_is_the_identity():
    """So the untrained model is its embedding and its head, at any depth."""
    model, ids = new(), ids_of(2, 8)
    expected = torch.nn.functional.rms_norm(model.wte(ids), (16,), eps=1e-6) @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids), expected, rtol=0, atol=1e-6)  # fp32, logits below 1


def test_every_weight_has_a_gradient_once_the_projections_are_not_zero(model_of):
    """The fixture's weights are not zero."""
    model, ids = model_of("modern"), ids_of(2, 16)
    model.loss(ids, ids.roll(-1, 1)).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_the_first_step_changes_the_zero_initialized_projections():
    model, ids = new(), ids_of(2, 8)
    model.loss(ids, ids.roll(-1, 1)).backward()
    changing = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 0}
    assert {"wte.weight", "h.0.self_attn.o_proj.weight", "h.2.mlp.down_proj.weight"} <= changing


@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_have_the_documented_standard_deviations(tied):
    model = new(n_embd=128, vocab_size=400, tie_embeddings=tied)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == 1).all(), name
        elif "o_proj" in name or "down_proj" in name:
            assert (parameter == 0).all(), name
        else:
            given = {"wte.weight": 0.02 if tied else 1.0, "lm_head.weight": 0.02}
            expected = given.get(name, 1 / math.sqrt(parameter.shape[1]))
            # The standard error of 16,384 or more samples is at most 0.6%; five times that.
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name


def test_a_generator_determines_the_weights_and_the_default_one_is_not_used():
    before = torch.random.get_rng_state()
    first, second = new(), new()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_rotary_products_depend_only_on_the_distance():
    config = SMALL.model_copy(update={"n_embd": 32, "block_size": 12})
    rotary, random = Rotary(config).double(), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 16, dtype=torch.double, generator=random)

    def rotated(x, position):
        cos, sin = (angle.flatten() for angle in rotary(torch.tensor([position])))
        a, b = x.chunk(2)
        return torch.cat([a * cos - b * sin, a * sin + b * cos])

    near, far = (rotated(q, start + 3) @ rotated(k, start) for start in (0, 8))
    # Angles are in fp32, rounded to 1e-7.
    assert near.item() == pytest.approx(far.item(), abs=1e-5)
    assert near.item() != pytest.approx((rotated(q, 4) @ rotated(k, 0)).item(), abs=1e-2)
    assert torch.equal(rotated(q, 0), q)
    assert rotated(q, 7).norm().item() == pytest.approx(q.norm().item(), rel=1e-6)


def test_a_model_on_the_meta_device_has_its_rotary_angles():
    with torch.device("meta"):
        model = Modern(SMALL)
    assert model.wte.weight.is_meta
    assert torch.equal(model.rotary.cos, new().rotary.cos)
    assert not {name for name in model.state_dict() if name.startswith("rotary")}


def test_fewer_key_and_value_heads_mean_smaller_projections_and_caches():
    shared, full = new(n_embd=32, n_head=4, n_kv_head=2), new(n_embd=32, n_head=4)
    assert shared.h[0].self_attn.k_proj.weight.shape == (16, 32)
    assert full.h[0].self_attn.k_proj.weight.shape == (32, 32)
    assert shared.new_cache(1).keys[0].numel() * 2 == full.new_cache(1).keys[0].numel()


def test_widths_have_defaults_and_can_be_set():
    assert new().h[0].mlp.up_proj.weight.shape == (64, 16)  # 8/3 of 16, rounded up to a multiple of 32
    assert new(n_inner=40).h[0].mlp.up_proj.weight.shape == (40, 16)
    assert new(head_dim=12).h[0].self_attn.o_proj.weight.shape == (16, 24)


def test_dropout_is_applied_only_in_training_mode(model_of):
    model, ids = model_of("modern", dropout=0.3), ids_of(1, 16)
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), model_of("modern")(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_a_tied_head_is_the_embedding_itself():
    tied = new(tie_embeddings=True)
    assert tied.lm_head.weight is tied.wte.weight
    assert new().lm_head.weight is not tied.wte.weight


def test_the_vocabulary_size_must_be_set():
    with pytest.raises(ConfigError, match="vocab_size"):
        Modern(ModelConfig())


def test_more_tokens_than_the_context_fail_an_assertion(model_of):
    with pytest.raises(AssertionError, match="17 tokens do not fit a context of 16"):
        model_of("modern")(torch.zeros(1, 17, dtype=torch.long))


@torch.no_grad()
def test_joined_projections_give_the_same_queries_keys_and_values(model_of):
    model = model_of("modern")
    attention = model.h[1].self_attn
    random = torch.Generator().manual_seed(0)
    for T in (1, 5):
        x = torch.randn(2, T, 16, generator=random)
        angles = model.rotary(torch.arange(3, 3 + T))
        expected = attention.project(x, angles)
        separate = torch.cat([attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)], dim=-1)
        attention.joined = lambda _, separate=separate: separate
        for got, one in zip(attention.project(x, angles), expected, strict=True):
            assert torch.equal(got, one)
        attention.joined = None
