"""One training step: what it updates, what it reports, and when it refuses to update."""

import math

import pytest
import torch

from tokenloom.errors import TrainingError
from tokenloom.run_folder import RunFolder
from tokenloom.training.schedule import learning_rate, muon_learning_rate
from tokenloom.training.step import compute_gradient, train_step


def weights(state):
    return [parameter.detach().clone() for parameter in state.model.parameters()]


def test_a_step_updates_the_weights_and_reports_the_loss_before_the_update(state):
    before = weights(state)
    loss, _ = compute_gradient(state, 0)
    result = train_step(state, 0)
    assert result.nats == loss
    assert result.nats / state.tokens_per_step == pytest.approx(math.log(257), rel=0.05)  # untrained
    assert any(not torch.equal(old, new) for old, new in zip(before, weights(state), strict=True))


def test_a_step_reports_the_learning_rate_of_each_optimizer(state_of):
    muon, adamw = state_of(), state_of(train={"optimizer": "adamw"})
    result = train_step(muon, 5)
    assert result.lr == learning_rate(5, muon.config.train)
    assert result.muon_lr == muon_learning_rate(5, muon.config.train)
    assert train_step(adamw, 5).muon_lr is None


def test_the_reported_gradient_norm_is_that_before_clipping(state_of):
    norms = [train_step(state_of(train={"grad_clip": clip}), 0).grad_norm for clip in (None, 1e-3)]
    assert norms[0] == norms[1] > 1e-3


def test_a_gradient_that_is_not_finite_updates_nothing(state):
    with torch.no_grad():
        next(state.model.parameters()).fill_(float("nan"))
    before = weights(state)
    with pytest.raises(TrainingError, match=r"step 8: the loss is not finite .* The weights were not updated"):
        train_step(state, 7)
    assert all(torch.equal(old, new) for old, new in zip(before[1:], weights(state)[1:], strict=True))


def test_activation_checkpointing_changes_no_weight_and_no_name(state_of):
    stored, recomputed = (
        state_of(model={"dropout": 0.2}, train={"activation_checkpointing": flag}) for flag in (False, True)
    )
    for state in (stored, recomputed):
        train_step(state, 0)
    assert recomputed.model.activation_checkpointing
    for expected, actual in (
        (stored.model.state_dict(), recomputed.model.state_dict()),
        (stored.optimizer.state_tensors(), recomputed.optimizer.state_tensors()),
    ):
        assert expected.keys() == actual.keys()
        assert all(torch.equal(tensor, actual[name]) for name, tensor in expected.items())


def test_a_new_number_of_steps_reaches_the_schedule_and_the_saved_configuration(state):
    state.change_settings(max_steps=7)
    assert state.optimizer.config.max_steps == state.config.train.max_steps == 7
    assert RunFolder(state.run.path).config().train.max_steps == 7
