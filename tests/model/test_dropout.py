"""Dropout: the fraction of zeroed elements, the scale of the others, and the random numbers used."""

import pytest
import torch
import torch.nn.functional as F

from tokenloom.model.dropout import Dropout, drop


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_zeroed_fraction_is_p_and_the_mean_is_kept(p):
    torch.manual_seed(0)
    dropped = drop(torch.ones(1001, 1001, dtype=torch.bfloat16), p)
    deviation = (p * (1 - p) / dropped.numel()) ** 0.5
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=5 * deviation + 1 / 65536)
    assert dropped.double().mean().item() == pytest.approx(1, abs=5 * deviation / (1 - p) + 2**-8)
    assert dropped.unique().numel() == 2


def test_the_lanes_of_a_random_number_are_zeroed_independently_with_equal_probability():
    torch.manual_seed(0)
    zeroed = (drop(torch.ones(100_000, 4, dtype=torch.bfloat16), 0.25) == 0).double()
    torch.testing.assert_close(zeroed.mean(0), torch.full((4,), 0.25, dtype=torch.double), atol=0.008, rtol=0)
    assert (torch.corrcoef(zeroed.T) - torch.eye(4)).abs().max() < 0.02


def test_zeroed_elements_have_no_gradient_and_others_are_scaled():
    torch.manual_seed(0)
    x = torch.ones(64, 64, dtype=torch.bfloat16, requires_grad=True)
    dropped = drop(x, 0.5)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


def test_the_same_seed_gives_the_same_mask():
    x = torch.ones(33, 7, dtype=torch.bfloat16)
    masks = [drop(x, 0.5) for seed in (1, 1, 2) if torch.manual_seed(seed)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_in_fp32_the_masks_are_torchs():
    x = torch.randn(50, 50)
    torch.manual_seed(3)
    expected = F.dropout(x, 0.1)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.1)(x), expected)


def test_without_dropout_the_input_is_returned_and_no_random_number_consumed():
    x, state = torch.ones(8, dtype=torch.bfloat16), torch.get_rng_state()
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)
