"""The loss is the cross-entropy of the logits for any chunk size and any micro-batch size."""

import pytest
import torch
import torch.nn.functional as F

from tokenloom.model import head
from tokenloom.model.head import head_loss

V = 60
BYTES = 8  # of a value in double precision
# In double precision; the loss of a row does not depend on its chunk.
CLOSE = {"rtol": 1e-12, "atol": 1e-14}


def batch_of(B=3, T=7, seed=0):
    return torch.randint(0, V, (2, B, T), generator=torch.Generator().manual_seed(seed))


def head_inputs(B=3, T=7, C=5):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(B, T, C, dtype=torch.double, generator=random, requires_grad=True)
    weight = torch.randn(V, C, dtype=torch.double, generator=random, requires_grad=True)
    targets = batch_of(B, T)[1]
    targets[0, :3] = targets[-1, -1] = -100
    return x, weight, targets


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def summed_gradients(model, ids, targets, micro_batch_size):
    model.zero_grad()
    for micro_ids, micro_targets in zip(ids.split(micro_batch_size), targets.split(micro_batch_size), strict=True):
        (model.loss(micro_ids, micro_targets, "sum") / targets.numel()).backward()
    return gradients(model)


def test_the_loss_of_a_model_is_the_cross_entropy_of_its_logits(model):
    ids, targets = batch_of()
    logits = model(ids).flatten(0, 1)
    for reduction in ("mean", "sum", "none"):
        expected = F.cross_entropy(logits, targets.flatten(), reduction=reduction)
        torch.testing.assert_close(model.loss(ids, targets, reduction), expected, rtol=1e-6, atol=0)  # fp32
    assert model.loss(ids, targets).shape == ()
    assert model.loss(ids, targets, "none").shape == (ids.numel(),)


def test_targets_of_minus_100_are_not_counted(model):
    ids, targets = batch_of()
    marked = targets.clone()
    marked[1:, 2:] = -100
    counted = (marked != -100).flatten()
    every = model.loss(ids, targets, "none")
    torch.testing.assert_close(model.loss(ids, marked, "none"), every * counted, rtol=0, atol=0)
    torch.testing.assert_close(model.loss(ids, marked), every[counted].mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(model.loss(ids, marked, "sum"), every[counted].sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("rows", [1, 4, 20])
def test_chunk_size_changes_neither_loss_nor_gradients(monkeypatch, reduction, rows):
    """21 positions, in chunks whose size divides 21 or does not."""

    def loss_and_gradients():
        x, weight, targets = head_inputs()
        loss = head_loss(x, weight, targets, reduction=reduction)
        (loss * torch.arange(1, loss.numel() + 1).reshape(loss.shape)).sum().backward()
        return loss, x.grad, weight.grad

    whole = loss_and_gradients()
    monkeypatch.setattr(head, "CHUNK_BYTES", rows * V * BYTES)
    for chunked, expected in zip(loss_and_gradients(), whole, strict=True):
        torch.testing.assert_close(chunked, expected, **CLOSE)


def test_a_model_in_chunks_has_the_same_gradients(monkeypatch, model):
    model.double()
    ids, targets = batch_of()
    expected = summed_gradients(model, ids, targets, 3)
    monkeypatch.setattr(head, "CHUNK_BYTES", 2 * V * BYTES)
    for name, gradient in summed_gradients(model, ids, targets, 3).items():
        torch.testing.assert_close(gradient, expected[name], **CLOSE)


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_computed_one_chunk_at_a_time(monkeypatch, training):
    seen = []

    def recording(logits):
        seen.append(len(logits))
        return logits

    monkeypatch.setattr(head, "_at_least_fp32", recording)
    monkeypatch.setattr(head, "CHUNK_BYTES", (8 * V + 5) * BYTES)
    x, weight, targets = head_inputs()
    with torch.set_grad_enabled(training):
        loss = head_loss(x, weight, targets)
    assert seen == [8, 8, 5]
    if training:
        loss.backward()
        assert seen == [8, 8, 5]  # the gradient was computed with them


def test_a_vocabulary_larger_than_a_chunk_is_computed_one_position_at_a_time(monkeypatch):
    x, weight, targets = head_inputs()
    expected = head_loss(x, weight, targets)
    monkeypatch.setattr(head, "CHUNK_BYTES", V - 1)
    torch.testing.assert_close(head_loss(x, weight, targets), expected, **CLOSE)


@pytest.mark.parametrize("rows", [1, 4, 21])
def test_the_softmax_of_a_chunk_in_parts_changes_nothing(monkeypatch, rows):
    def loss_and_gradients():
        x, weight, targets = head_inputs()
        loss = head_loss(x, weight, targets)
        loss.backward()
        return loss, x.grad, weight.grad

    whole = loss_and_gradients()
    monkeypatch.setattr(head, "PART_LOGITS", rows * V)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert all(torch.equal(part, expected) for part, expected in zip(loss_and_gradients(), whole, strict=True))


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_the_gradient_of_the_weight_does_not_depend_on_the_rows_that_are_computed_at_once(monkeypatch, rows):
    gradients = []
    for rows_at_once in (rows, V):
        monkeypatch.setattr(head, "WEIGHT_ROWS", rows_at_once)
        x, weight, targets = head_inputs()
        head_loss(x, weight, targets).backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(*gradients, **CLOSE)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3, 4])
def test_gradients_do_not_depend_on_the_micro_batch_size(model, micro_batch_size):
    """They are those of the mean over all tokens, also if the last micro-batch is smaller."""
    model.double()
    ids, targets = batch_of(6)
    model.zero_grad()
    model.loss(ids, targets).backward()
    expected = gradients(model)
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    for name, gradient in summed_gradients(model, ids, targets, micro_batch_size).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-13)  # sums of 42 terms, reordered


def test_the_loss_is_summed_in_fp32_also_under_autocast():
    x, weight, targets = (t.detach() for t in head_inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head_loss(x.float(), weight.float(), targets, reduction="none")
    assert loss.dtype == torch.float32
    # Products have 8 bits: errors of about a hundredth of logits of a few units.
    expected = head_loss(x, weight, targets, reduction="none").float()
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("rows", [1, 8, 1000])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_is_that_of_the_plain_formula(monkeypatch, rows, reduction):
    x, weight, targets = head_inputs()
    targets = targets.clone()
    targets[0, 1] = targets[-1, -1] = -100
    logits = x @ weight.T
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)
    expected = torch.autograd.grad(2.5 * plain, (x, weight))
    monkeypatch.setattr(head, "CHUNK_BYTES", rows * V * BYTES)
    loss = head_loss(x, weight, targets, reduction=reduction)
    torch.testing.assert_close(loss, plain, **CLOSE)
    for got, gradient in zip(torch.autograd.grad(2.5 * loss, (x, weight)), expected, strict=True):
        torch.testing.assert_close(got, gradient, **CLOSE)
