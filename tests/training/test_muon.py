"""Muon computes the updates of torch's implementation, for all matrices of a shape at once."""

import pytest
import torch
from torch import nn

from tokenloom.training import muon
from tokenloom.training.muon import Muon, orthogonalize

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(24, 24), (24, 24), (96, 24), (24, 96), (24, 96)]


def new_matrices():
    random = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]


@pytest.mark.parametrize("is_fast", [True, False])
def test_updates_are_those_of_torch(monkeypatch, is_fast):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: is_fast)
    options = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "original"}
    ours, theirs = new_matrices(), new_matrices()
    optimizer, reference = Muon(ours, **options), torch.optim.Muon(theirs, **options)
    random = torch.Generator().manual_seed(4)
    for _ in range(3):
        for our, their in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=random)
            their.grad = our.grad.clone()
        optimizer.step()
        reference.step()
    for our, their, initial in zip(ours, theirs, new_matrices(), strict=True):
        # bf16 has 8 bits: sums in another order differ by a hundredth of the update.
        assert (our - their).norm() < 0.02 * (their - initial).norm()
        assert torch.equal(optimizer.state[our]["momentum_buffer"], reference.state[their]["momentum_buffer"])


def test_a_matrix_without_a_gradient_is_not_changed():
    matrices = new_matrices()
    optimizer = Muon(matrices, lr=0.02)
    for weight in matrices[1:]:
        weight.grad = torch.ones_like(weight)
    before = [weight.detach().clone() for weight in matrices]
    optimizer.step()
    assert [torch.equal(weight, old) for weight, old in zip(matrices, before, strict=True)] == [True, *[False] * 4]


def test_products_are_in_fp32_where_bf16_is_slow(monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: False)
    matrices = new_matrices()
    expected = []
    for weight in matrices:
        weight.grad = weight.detach().clone()
        update = orthogonalize(weight.detach()[None], COEFFICIENTS, 5, 1e-7, torch.float32)[0]
        expected.append(weight.detach() - 0.02 * max(1, weight.shape[0] / weight.shape[1]) ** 0.5 * update)
    Muon(matrices, lr=0.02, momentum=0.0, nesterov=False, weight_decay=0.0, adjust_lr_fn="original").step()
    for weight, value in zip(matrices, expected, strict=True):
        assert torch.allclose(weight, value, atol=1e-6)  # bf16 would differ by 1e-4


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8)])
def test_singular_values_are_near_one(shape):
    stack = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    values = torch.linalg.svdvals(orthogonalize(stack, COEFFICIENTS, 5, 1e-7).float())
    # Five steps leave them between about 0.7 and 1.2 by design; very small ones need more (Jordan et al. 2024).
    assert values.max() < 1.4
    assert values.median() > 0.6
