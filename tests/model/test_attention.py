"""Attention is causal, and gives the same result with and without the cache."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tokenloom.config import ModelConfig
from tokenloom.model import attention
from tokenloom.model.attention import KVCache, attend

T = 8
# Every way to split T tokens into consecutive parts.
SPLITS = [(0, *cuts, T) for count in range(T) for cuts in combinations(range(1, T), count)]
# Sums in a different order: relative rounding of 1e-15 in double precision, over two layers, for logits up to about 50.
CLOSE = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def precise(model):
    return model.double()


def ids_of(*shape, seed=0):
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(seed))


def cached_logits(model, ids, cuts, cache):
    return torch.cat([model(ids[:, a:b], cache) for a, b in zip(cuts, cuts[1:], strict=False)], dim=1)


# Attention itself


def plain_attention(q, k, v):
    """Scaled dot-product attention token by token, as in section 3.2 of Vaswani et al."""
    B, H, T, D = q.shape
    group = H // k.shape[1]
    y = torch.zeros(B, T, H, D, dtype=q.dtype)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                seen_k, seen_v = k[b, h // group, : t + 1], v[b, h // group, : t + 1]
                y[b, t, h] = (seen_k @ q[b, h, t] / math.sqrt(D)).softmax(0) @ seen_v
    return y.flatten(2)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_matches_its_definition(kv_heads):
    random = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 5, 6, dtype=torch.double, generator=random)
    k, v = torch.randn(2, 2, kv_heads, 5, 6, dtype=torch.double, generator=random)
    torch.testing.assert_close(attend(q, k, v), plain_attention(q, k, v), **CLOSE)


def test_dropout_drops_attention_weights():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 400, 4)
    ones = torch.ones(1, 1, 400, 4)
    sums = attend(q, k, ones, dropout=0.5)  # the sum of the kept weights, each doubled
    assert sums.std() > 0.01
    assert sums[0, 50:].mean().item() == pytest.approx(1, abs=0.02)  # 350 means of 50 to 400 weights each
    assert torch.allclose(attend(q, k, ones), torch.ones(1, 400, 4))


# Causality


def test_no_logit_depends_on_a_later_token(model):
    """The gradient of a logit with respect to the embeddings at later positions is exactly zero."""
    embedded = []
    for module in model.modules():
        if isinstance(module, nn.Embedding):  # including those of positions
            module.register_forward_hook(lambda module, args, output: embedded.append(output))
    logits = model(ids_of(1, T))
    assert len(embedded) == {"gpt2": 2, "modern": 1}[model.config.family]
    for t in range(T):
        for gradient in torch.autograd.grad(logits[0, t].logsumexp(0), embedded, retain_graph=True):
            size = gradient.reshape(T, -1).abs().amax(-1)
            assert (size[t + 1 :] == 0).all()
            assert size[t] > 0  # depends on its own position
        token_gradient = torch.autograd.grad(logits[0, t].square().sum(), embedded[0], retain_graph=True)[0]
        assert (token_gradient.reshape(T, -1).abs().amax(-1)[: t + 1] > 0).all()  # and on all earlier ones


def test_logits_do_not_change_with_later_tokens(model):
    ids = ids_of(2, T)
    changed = ids.clone()
    changed[:, 5:] = (ids[:, 5:] + 1) % 60
    before, after = model(ids), model(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=0, atol=1e-5)  # fp32, logits up to about 50
    assert (after[:, 5:] != before[:, 5:]).any()


# Cached = uncached


@torch.no_grad()
def test_cached_logits_equal_uncached_ones_for_every_split_of_the_tokens(precise):
    ids = ids_of(2, T)
    expected = precise(ids)
    assert len(SPLITS) == 2 ** (T - 1)
    for cuts in SPLITS:
        logits = cached_logits(precise, ids, cuts, precise.new_cache(2))
        torch.testing.assert_close(logits, expected, **CLOSE)


@torch.no_grad()
def test_cached_logits_in_single_precision_differ_only_by_rounding(model):
    ids = ids_of(3, 16)
    logits = cached_logits(model, ids, range(17), model.new_cache(3))
    # fp32 rounds to 1e-7; logits are up to about 50, after two layers of sums over 16 to 64 terms.
    torch.testing.assert_close(logits, model(ids), rtol=0, atol=1e-4)
    assert torch.equal(logits.argmax(-1), model(ids).argmax(-1))


@torch.no_grad()
@pytest.mark.parametrize("parts", [(1, 1, 1), (2, 3, 1), (5,)])
def test_rows_of_different_lengths_continue_together(precise, parts):
    """Each row has the logits it has alone, whether tokens are fed one by one or in parts."""
    lengths = (3, 7, 1, 7)
    rows = [ids_of(1, length + sum(parts), seed=length) for length in lengths]
    together = precise.new_cache(len(rows))
    for row, (ids, length) in enumerate(zip(rows, lengths, strict=True)):
        alone = precise.new_cache(1)
        precise(ids[:, :length], alone)
        together.copy_row(row, alone)
    assert together.lengths.tolist() == list(lengths)
    done = 0
    for count in parts:
        new = [ids[:, n + done : n + done + count] for ids, n in zip(rows, lengths, strict=True)]
        logits = precise(torch.cat(new), together)
        for row, (ids, n) in enumerate(zip(rows, lengths, strict=True)):
            expected = precise(ids[:, : n + done + count])[0, -count:]
            torch.testing.assert_close(logits[row], expected, **CLOSE)
        done += count


@torch.no_grad()
def test_rows_can_be_removed_and_replaced(precise):
    ids = ids_of(3, 10)
    cache = precise.new_cache(3)
    precise(ids[:, :6], cache)
    cache = cache.select([2, 0])
    assert cache.lengths.tolist() == [6, 6]
    torch.testing.assert_close(precise(ids[[2, 0], 6:7], cache)[:, 0], precise(ids[[2, 0], :7])[:, -1], **CLOSE)

    newcomer, other = ids_of(1, 10, seed=9), precise.new_cache(2)
    precise(torch.cat([ids[1:2, :4], newcomer[:, :4]]), other)
    cache.copy_row(0, other, source_row=1)
    logits = precise(torch.cat([newcomer[:, 4:5], ids[:1, 7:8]]), cache)
    torch.testing.assert_close(logits[0, 0], precise(newcomer[:, :5])[0, -1], **CLOSE)
    torch.testing.assert_close(logits[1, 0], precise(ids[:1, :8])[0, -1], **CLOSE)


@torch.no_grad()
def test_a_selection_of_rows_is_a_copy(precise):
    ids = ids_of(2, 6)
    cache = precise.new_cache(2)
    precise(ids[:, :4], cache)
    kept = cache.select([0, 1])
    precise(torch.zeros(2, 2, dtype=torch.long), kept)
    torch.testing.assert_close(precise(ids[:, 4:], cache), precise(ids)[:, 4:], **CLOSE)


@torch.no_grad()
def test_ids_may_be_overwritten_after_the_forward_pass(precise):
    ids = ids_of(1, 6)
    cache, given = precise.new_cache(1), ids[:, :1].clone()
    for t in range(6):
        given.copy_(ids[:, t : t + 1])
        logits = precise(given, cache)
        given.zero_()
    torch.testing.assert_close(logits[0, 0], precise(ids)[0, -1], **CLOSE)


@torch.no_grad()
def test_a_cache_holds_exactly_one_context(precise):
    ids, cache = ids_of(1, 17), precise.new_cache(1)
    assert cache.block_size == 16
    precise(ids[:, :15], cache)
    torch.testing.assert_close(precise(ids[:, 15:16], cache)[0, 0], precise(ids[:, :16])[0, -1], **CLOSE)
    with pytest.raises(AssertionError, match="slides the window"):
        precise(ids[:, 16:], cache)


def test_storage_is_allocated_once_for_the_key_and_value_heads():
    config = ModelConfig(vocab_size=9, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, block_size=5)
    cache = KVCache(config, 7, torch.device("cpu"), torch.bfloat16)
    assert cache.keys.shape == cache.values.shape == (3, 7, 2, 5, 8)
    assert cache.keys.dtype == torch.float32  # always on a CPU
    assert cache.lengths.tolist() == [0] * 7


@torch.no_grad()
def test_under_autocast_the_cache_has_the_models_precision(model):
    ids = ids_of(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = model.new_cache(2)
        logits = cached_logits(model, ids, (0, 3, 4, 6), cache)
        expected = model(ids)
    assert cache.keys.dtype == torch.float32
    # bf16 has 8 bits: logits up to about 50 are rounded to tenths.
    torch.testing.assert_close(logits.float(), expected.float(), rtol=0.05, atol=0.5)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_attention_by_bf16_matrix_products_has_the_same_result_and_gradient(heads):
    """Against torch's attention in fp32; bf16 rounds to 8 bits."""
    random = torch.Generator().manual_seed(4)
    q, k, v = (
        torch.randn(2, H, 12, 8, generator=random).bfloat16().requires_grad_() for H in (heads[0], *heads[1:] * 2)
    )
    assert attention._matmul_is_faster(q, k)
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True, enable_gqa=True)
    got = attend(q, k, v)
    torch.testing.assert_close(got.float(), exact.transpose(1, 2).flatten(2), rtol=0.03, atol=0.03)
    slope = torch.randn(got.shape, generator=random)
    expected = torch.autograd.grad((exact.transpose(1, 2).flatten(2) * slope).sum(), (q, k, v))
    for mine, theirs in zip(torch.autograd.grad((got.float() * slope).sum(), (q, k, v)), expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.05, atol=0.05)


def test_too_many_scores_fall_back_to_torchs_attention(monkeypatch):
    q = torch.zeros(1, 2, 8, 4, dtype=torch.bfloat16)
    monkeypatch.setattr(attention, "MAX_MATMUL_SCORES", 2 * 8 * 8 - 1)
    assert not attention._matmul_is_faster(q, q)
