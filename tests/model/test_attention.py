"""Attention matches its definition, and is causal."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tokenloom.model import attention
from tokenloom.model.attention import attend

T = 8
# Sums in a different order: relative rounding of 1e-15 in double precision.
CLOSE = {"rtol": 0, "atol": 1e-12}


def ids_of(*shape, seed=0):
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(seed))


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
