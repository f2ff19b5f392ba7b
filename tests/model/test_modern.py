"""The modern family: every idea of its block does what its paper says."""

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


def test_at_first_every_block_passes_its_input_on():
    """So the untrained model is its embedding and its head, however deep."""
    model, ids = new(bigram_buckets=97, value_embeddings=True), ids_of(2, 8)
    normed = torch.nn.functional.rms_norm(model.wte(ids), (16,))
    expected = torch.nn.functional.rms_norm(normed, (16,)) @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids), 15 * torch.tanh(expected / 15), rtol=0, atol=1e-6)  # fp32, logits below 1


def test_yet_every_weight_has_a_gradient_once_the_projections_have_left_zero(model_of):
    """The fixture's weights are away from zero: nothing is dead."""
    model, ids = model_of("modern"), ids_of(2, 16)
    model.loss(ids, ids.roll(-1, 1)).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_the_first_step_moves_the_projections_into_the_stream_pairs_and_values_follow():
    model, ids = new(bigram_buckets=97, value_embeddings=True), ids_of(2, 8)
    model.loss(ids, ids.roll(-1, 1)).backward()
    moving = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() > 0}
    assert {"wte.weight", "pairs.weight", "h.0.attn.c_proj.weight", "h.2.mlp.c_proj.weight"} <= moving


def test_initial_weights_have_the_deviations_that_keep_the_size_of_the_stream():
    model = new(n_embd=128, vocab_size=400, bigram_buckets=97, value_embeddings=True)
    for name, parameter in model.named_parameters():
        if name.endswith("mix"):
            assert parameter.tolist() == [1.0, 0.0]
        elif "c_proj" in name or name.startswith(("pairs", "values")):
            assert (parameter == 0).all(), name
        else:
            expected = 0.02 if name.startswith(("wte", "lm_head")) else 1 / math.sqrt(parameter.shape[1])
            # The deviation of 16,384 draws or more is off by 0.6% or less; five times that.
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name


def test_a_generator_fixes_the_weights_and_spares_the_default_one():
    before = torch.random.get_rng_state()
    first, second = new(), new()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_rotary_products_depend_on_the_distance_alone():
    config = SMALL.model_copy(update={"n_embd": 32, "block_size": 12})
    rotary, random = Rotary(config).double(), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 16, dtype=torch.double, generator=random)

    def turned(x, position):
        cos, sin = (angle.flatten() for angle in rotary(torch.tensor([position])))
        a, b = x.chunk(2)
        return torch.cat([a * cos - b * sin, a * sin + b * cos])

    near, far = (turned(q, start + 3) @ turned(k, start) for start in (0, 8))
    # Angles are kept in fp32, 1e-7 of each.
    assert near.item() == pytest.approx(far.item(), abs=1e-5)
    assert near.item() != pytest.approx((turned(q, 4) @ turned(k, 0)).item(), abs=1e-2)
    assert torch.equal(turned(q, 0), q)
    assert turned(q, 7).norm().item() == pytest.approx(q.norm().item(), rel=1e-6)


def test_the_rotary_angles_are_there_even_where_the_model_is_laid_out_on_no_device():
    with torch.device("meta"):
        model = Modern(SMALL)
    assert model.wte.weight.is_meta
    assert torch.equal(model.rotary.cos, new().rotary.cos)
    assert not {name for name in model.state_dict() if name.startswith("rotary")}


def test_logits_never_pass_the_cap(model_of):
    wild, ids = model_of("modern", softcap=2.0), ids_of(2, 16)
    with torch.no_grad():
        wild.lm_head.weight *= 100
        assert wild(ids).abs().max() <= 2.0
        uncapped = model_of("modern", softcap=None)
        uncapped.lm_head.weight *= 100
        assert uncapped(ids).abs().max() > 2.0


def test_a_pair_of_tokens_has_an_embedding_of_its_own(model_of):
    """The second token of a pair looks up the pair; the first of a text has nothing before it."""
    rows = []
    model = model_of("modern")
    model.pairs.register_forward_hook(lambda module, args, output: rows.append(args[0]))
    model(torch.tensor([[3, 5, 3, 5, 4], [5, 3, 5, 4, 3]]))
    (first, second) = rows[0].tolist()
    assert first[1] == first[3] == second[2]  # 3 5
    assert first[2] == second[1]  # 5 3
    assert len({first[0], first[1], first[2], first[4]}) == 4
    assert second[0] != second[2]  # 5 at the beginning, and 5 after 3
    assert max(first + second) < 97


def test_all_buckets_can_be_reached():
    pairs = torch.cartesian_prod(torch.arange(50), torch.arange(50))
    rows = Modern._pair_ids(pairs, None, 97)[:, 1]
    assert set(rows.tolist()) == set(range(97))


@pytest.mark.parametrize(("n_layer", "with_values"), [(1, {"0"}), (2, {"1"}), (3, {"0", "2"}), (4, {"1", "3"})])
def test_every_other_block_has_value_embeddings_the_last_one_included(n_layer, with_values):
    assert set(new(n_layer=n_layer, value_embeddings=True).values) == with_values
    assert not new(n_layer=n_layer).values


def test_fewer_key_and_value_heads_mean_smaller_projections_and_caches():
    shared, full = new(n_embd=32, n_head=4, n_kv_head=2), new(n_embd=32, n_head=4)
    assert shared.h[0].attn.c_k.weight.shape == (16, 32)
    assert full.h[0].attn.c_k.weight.shape == (32, 32)
    assert shared.new_cache(1).keys.numel() * 2 == full.new_cache(1).keys.numel()


def test_the_stream_may_return_to_its_start(model_of):
    """A block whose weight on the start is all there is gives what a first block would."""
    model, ids = model_of("modern"), ids_of(1, 16)
    with torch.no_grad():
        for block in model.h:
            block.mix.copy_(torch.tensor([0.0, 0.0]))
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        assert (model.hidden(ids) == 0).all()
        model.h[-1].mix[1] = 1.0
        start = torch.nn.functional.rms_norm(model.wte(ids) + model.pairs(model._pair_ids(ids, None, 97)), (16,))
        torch.testing.assert_close(model.hidden(ids), start, rtol=1e-5, atol=1e-6)  # fp32, normed once more


def test_dropout_acts_while_training_only(model_of):
    model, ids = model_of("modern", dropout=0.3), ids_of(1, 16)
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), model_of("modern")(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_a_tied_head_is_the_embedding_itself():
    tied = new()
    assert tied.lm_head.weight is tied.wte.weight
    assert new(tie_embeddings=False).lm_head.weight is not tied.wte.weight


def test_the_vocabulary_must_be_known():
    with pytest.raises(ConfigError, match="vocab_size"):
        Modern(ModelConfig())


def test_more_tokens_than_the_context_are_our_own_mistake(model_of):
    with pytest.raises(AssertionError, match="17 tokens do not fit a context of 16"):
        model_of("modern")(torch.zeros(1, 17, dtype=torch.long))
