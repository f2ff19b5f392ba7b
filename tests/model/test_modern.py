"""The modern family: every part of the block does what its paper says."""

import math

import pytest
import torch

from tokenloom.config import ModelConfig
from tokenloom.errors import ConfigError
from tokenloom.model.modern import Modern, Rotary

SMALL = ModelConfig(vocab_size=50, block_size=8, n_layer=3, n_head=2, n_embd=16)


def ids_of(*shape, seed=0):
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def new(**changes):
    return Modern(SMALL.model_copy(update=changes), torch.Generator().manual_seed(0)).eval()


def test_an_untrained_block_is_the_identity():
    """So the untrained model is its embedding and its head, at any depth."""
    model, ids = new(bigram_buckets=97, value_embeddings=True), ids_of(2, 8)
    normed = torch.nn.functional.rms_norm(model.wte(ids), (16,))
    expected = torch.nn.functional.rms_norm(normed, (16,)) @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids), 15 * torch.tanh(expected / 15), rtol=0, atol=1e-6)  # fp32, logits below 1


def test_every_weight_has_a_gradient_once_the_projections_are_not_zero(model_of):
    """The fixture's weights are not zero."""
    model, ids = model_of("modern"), ids_of(2, 16)
    model.loss(ids, ids.roll(-1, 1)).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_the_first_step_changes_the_zero_initialized_projections():
    model, ids = new(bigram_buckets=97, value_embeddings=True), ids_of(2, 8)
    model.loss(ids, ids.roll(-1, 1)).backward()
    changing = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 0}
    assert {"wte.weight", "pairs.weight", "h.0.attn.c_proj.weight", "h.2.mlp.c_proj.weight"} <= changing


def test_initial_weights_have_the_documented_standard_deviations():
    model = new(n_embd=128, vocab_size=400, bigram_buckets=97, value_embeddings=True)
    for name, parameter in model.named_parameters():
        if name.endswith("mix"):
            assert parameter.tolist() == [1.0, 0.0]
        elif "c_proj" in name or name.startswith(("pairs", "values")):
            assert (parameter == 0).all(), name
        else:
            expected = 0.02 if name.startswith(("wte", "lm_head")) else 1 / math.sqrt(parameter.shape[1])
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


def test_logits_are_bounded_by_the_softcap(model_of):
    model, ids = model_of("modern", softcap=2.0), ids_of(2, 16)
    with torch.no_grad():
        model.lm_head.weight *= 100
        assert model(ids).abs().max() <= 2.0
        uncapped = model_of("modern", softcap=None)
        uncapped.lm_head.weight *= 100
        assert uncapped(ids).abs().max() > 2.0


def test_consecutive_tokens_have_a_bigram_embedding(model_of):
    """The row of a token depends on its predecessor; the first token of a text has none."""
    rows = []
    model = model_of("modern")
    model.pairs.register_forward_hook(lambda module, args, output: rows.append(args[0]))
    model(torch.tensor([[3, 5, 3, 5, 4], [5, 3, 5, 4, 3]]))
    (first, second) = rows[0].tolist()
    assert first[1] == first[3] == second[2]  # 3 5
    assert first[2] == second[1]  # 5 3
    assert len({first[0], first[1], first[2], first[4]}) == 4
    assert second[0] != second[2]  # 5 at the start, and 5 after 3
    assert max(first + second) < 97


def test_all_buckets_are_used():
    pairs = torch.cartesian_prod(torch.arange(50), torch.arange(50))
    rows = Modern._pair_ids(pairs, None, 97)[:, 1]
    assert set(rows.tolist()) == set(range(97))


@pytest.mark.parametrize(("n_layer", "with_values"), [(1, {"0"}), (2, {"1"}), (3, {"0", "2"}), (4, {"1", "3"})])
def test_every_other_block_counted_from_the_last_has_value_embeddings(n_layer, with_values):
    assert set(new(n_layer=n_layer, value_embeddings=True).values) == with_values
    assert not new(n_layer=n_layer).values


def test_fewer_key_and_value_heads_mean_smaller_projections_and_caches():
    shared, full = new(n_embd=32, n_head=4, n_kv_head=2), new(n_embd=32, n_head=4)
    assert shared.h[0].attn.c_k.weight.shape == (16, 32)
    assert full.h[0].attn.c_k.weight.shape == (32, 32)
    assert shared.new_cache(1).keys.numel() * 2 == full.new_cache(1).keys.numel()


def test_a_block_can_add_the_embedding_to_the_residual_stream(model_of):
    """A block whose only nonzero weight is that of the embedding outputs the embedding."""
    model, ids = model_of("modern"), ids_of(1, 16)
    with torch.no_grad():
        for block in model.h:
            block.mix.copy_(torch.tensor([0.0, 0.0]))
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        assert (model.hidden(ids) == 0).all()
        model.h[-1].mix[1] = 1.0
        expected = torch.nn.functional.rms_norm(model.wte(ids) + model.pairs(model._pair_ids(ids, None, 97)), (16,))
        torch.testing.assert_close(model.hidden(ids), expected, rtol=1e-5, atol=1e-6)  # fp32, normalized twice


def test_dropout_is_applied_only_in_training_mode(model_of):
    model, ids = model_of("modern", dropout=0.3), ids_of(1, 16)
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), model_of("modern")(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_a_tied_head_is_the_embedding_itself():
    tied = new()
    assert tied.lm_head.weight is tied.wte.weight
    assert new(tie_embeddings=False).lm_head.weight is not tied.wte.weight


def test_the_vocabulary_size_must_be_set():
    with pytest.raises(ConfigError, match="vocab_size"):
        Modern(ModelConfig())


def test_more_tokens_than_the_context_fail_an_assertion(model_of):
    with pytest.raises(AssertionError, match="17 tokens do not fit a context of 16"):
        model_of("modern")(torch.zeros(1, 17, dtype=torch.long))
