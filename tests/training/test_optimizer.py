"""The optimizer: parameter groups, learning rates, and state that can be saved and restored."""

import pytest
import torch
from torch import nn

from tokenloom.config import ModelConfig, TrainConfig
from tokenloom.errors import CheckpointError
from tokenloom.model.gpt2 import GPT2
from tokenloom.training.optimizer import Optimizer
from tokenloom.training.schedule import learning_rate, muon_learning_rate

KINDS = ["adamw", "muon"]


def config_of(kind, **options) -> TrainConfig:
    return TrainConfig(optimizer=kind, max_steps=20, warmup_steps=3, **options)


def train(model, optimizer, steps: range) -> list[float]:
    rates = []
    for step in steps:
        ids, targets = torch.randint(0, 60, (2, 3, 16), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model.loss(ids, targets).backward()
        rates.append(optimizer.step(step)["adamw"])
    return rates


def names_in(optimizer, kind) -> dict[str, float]:
    """The weight decay of every parameter in a part."""
    groups = optimizer.parts[kind].param_groups
    return {optimizer.names[p]: group["weight_decay"] for group in groups for p in group["params"]}


def copy_of(model):
    again = type(model)(model.config)
    again.load_state_dict(model.state_dict())
    return again


# Parameter groups


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_every_weight_is_in_exactly_one_group(model_of, family, tied, kind):
    model = model_of(family, tie_embeddings=tied)
    optimizer = Optimizer(model, config_of(kind))
    listed = [optimizer.names[p] for part in optimizer.parts.values() for g in part.param_groups for p in g["params"]]
    assert sorted(listed) == sorted(name for name, _ in model.named_parameters())
    assert set(optimizer.parts) == {"adamw", kind}


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else(model):
    optimizer = Optimizer(model, config_of("muon"))
    shapes = dict(model.named_parameters())
    in_blocks = {name for name, parameter in shapes.items() if name.startswith("h.") and parameter.ndim == 2}
    assert set(names_in(optimizer, "muon")) == in_blocks
    assert {name.rpartition(".")[2] for name in in_blocks} == {"weight"}
    assert not {name for name in in_blocks if "ln_" in name or "mix" in name}
    assert {"wte.weight", "lm_head.weight"} <= set(names_in(optimizer, "adamw"))


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_and_embeddings_decay_gains_and_biases_do_not(model, kind):
    optimizer = Optimizer(model, config_of(kind, weight_decay=0.25))
    for part in optimizer.parts:
        for name, decay in names_in(optimizer, part).items():
            assert decay == (0.25 if dict(model.named_parameters())[name].ndim == 2 else 0.0), name


def test_decay_shrinks_matrices_without_a_gradient_and_not_gains():
    """By a factor of 1 - lr · decay, because the gradient is zero."""
    model = GPT2(ModelConfig(family="gpt2", vocab_size=9, block_size=4, n_layer=1, n_head=1, n_embd=8))
    before = copy_of(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    config = TrainConfig(optimizer="adamw", learning_rate=0.1, weight_decay=0.5, schedule="constant", warmup_steps=0)
    Optimizer(model, config).step(0)
    torch.testing.assert_close(model.wte.weight, 0.95 * before.wte.weight, rtol=1e-6, atol=0)  # fp32
    assert torch.equal(model.ln_f.weight, before.ln_f.weight)


def test_settings_reach_the_optimizers(model):
    config = config_of("muon", beta1=0.7, beta2=0.9, weight_decay=0.3)
    optimizer = Optimizer(model, config)
    assert all(group["betas"] == (0.7, 0.9) for group in optimizer.parts["adamw"].param_groups)
    assert all(group["weight_decay"] == 0.3 for group in optimizer.parts["muon"].param_groups)


# Steps


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_has_the_learning_rate_of_its_schedule(model, kind):
    config = config_of(kind, learning_rate=1e-3, muon_learning_rate=0.03)
    optimizer = Optimizer(model, config)
    for step in (0, 1, 7, 19):
        assert train(model, optimizer, range(step, step + 1)) == [learning_rate(step, config)]
        assert {group["lr"] for group in optimizer.parts["adamw"].param_groups} == {learning_rate(step, config)}
        if kind == "muon":
            assert {g["lr"] for g in optimizer.parts["muon"].param_groups} == {muon_learning_rate(step, config)}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_make_the_loss_smaller(model_of, kind):
    model = model_of("gpt2")
    ids, targets = torch.randint(0, 60, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    optimizer = Optimizer(model, config_of(kind, learning_rate=1e-2))
    losses = []
    for step in range(15):
        optimizer.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step(step)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_clearing_gradients_frees_them(model):
    optimizer = Optimizer(model, config_of("muon"))
    train(model, optimizer, range(1))
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_adamw_follows_the_published_algorithm():
    """One weight, two steps, computed by hand (arXiv:1711.05101, algorithm 2)."""

    class OneWeight(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = nn.Parameter(torch.tensor([[2.0]]))

    model = OneWeight()
    config = TrainConfig(
        optimizer="adamw",
        learning_rate=0.1,
        beta1=0.8,
        beta2=0.9,
        weight_decay=0.5,
        schedule="constant",
        warmup_steps=0,
    )
    optimizer, weight, m, v = Optimizer(model, config), 2.0, 0.0, 0.0
    for step, gradient in enumerate((3.0, -1.0)):
        model.wte.grad = torch.tensor([[gradient]])
        optimizer.step(step)
        m, v = 0.8 * m + 0.2 * gradient, 0.9 * v + 0.1 * gradient**2
        mean, square = m / (1 - 0.8 ** (step + 1)), v / (1 - 0.9 ** (step + 1))
        weight = weight * (1 - 0.1 * 0.5) - 0.1 * mean / (square**0.5 + 1e-8)
        assert model.wte.item() == pytest.approx(weight, rel=1e-6)  # fp32


# State


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_optimizer_makes_identical_steps(model, kind):
    optimizer = Optimizer(model, config_of(kind))
    train(model, optimizer, range(5))
    again = copy_of(model)
    restored = Optimizer(again, config_of(kind))
    restored.load_state_tensors({name: tensor.clone() for name, tensor in optimizer.state_tensors().items()})
    rates = [train(m, o, range(5, 10)) for m, o in ((model, optimizer), (again, restored))]
    assert rates[0] == rates[1]
    for (name, ours), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, tensor in optimizer.state_tensors().items():
        assert torch.equal(restored.state_tensors()[name], tensor), name


def test_without_its_state_the_steps_differ(model):
    """Shows that the previous test can fail."""
    optimizer = Optimizer(model, config_of("muon"))
    train(model, optimizer, range(5))
    again = copy_of(model)
    train(model, optimizer, range(5, 6))
    train(again, Optimizer(again, config_of("muon")), range(5, 6))
    assert not torch.equal(model.wte.weight, again.wte.weight)
    matrices = zip(model.h[0].mlp.parameters(), again.h[0].mlp.parameters(), strict=True)
    assert not any(torch.equal(trained, other) for trained, other in matrices if trained.ndim == 2)


@pytest.mark.parametrize("kind", KINDS)
def test_state_is_named_after_the_parameters(model, kind):
    optimizer = Optimizer(model, config_of(kind))
    assert optimizer.state_tensors() == {}
    train(model, optimizer, range(1))
    tensors = optimizer.state_tensors()
    by = {"adamw": ("exp_avg", "exp_avg_sq", "step"), "muon": ("momentum_buffer",)}
    expected = {
        f"{part}/{key}/{name}" for part in optimizer.parts for key in by[part] for name in names_in(optimizer, part)
    }
    assert tensors.keys() == expected
    assert tensors["adamw/step/wte.weight"] == 1


def test_state_is_restored_and_the_learning_rate_follows_the_schedule(model):
    optimizer = Optimizer(model, config_of("adamw", learning_rate=1e-3))
    train(model, optimizer, range(3))
    config = config_of("adamw", learning_rate=5e-4)
    restored = Optimizer(model, config)
    restored.load_state_tensors(optimizer.state_tensors())
    assert restored.state_tensors()["adamw/step/wte.weight"] == 3
    assert train(model, restored, range(3, 4)) == [learning_rate(3, config)]


def saved_by(model, kind):
    optimizer = Optimizer(model, config_of(kind))
    train(model, optimizer, range(1))
    return optimizer.state_tensors()


@pytest.mark.parametrize(("saved", "now"), [("adamw", "muon"), ("muon", "adamw")])
def test_the_state_of_a_different_optimizer_is_refused(model, saved, now):
    with pytest.raises(CheckpointError, match="does not match this run's") as refused:
        Optimizer(model, config_of(now)).load_state_tensors(saved_by(model, saved))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changes", [{"n_layer": 3}, {"n_layer": 1}, {"n_embd": 32}, {"vocab_size": 61}])
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_the_state_of_a_different_model_is_refused(model_of, family, changes):
    saved = saved_by(model_of(family), "muon")
    with pytest.raises(CheckpointError, match="the saved optimizer state has (.* does not match this run's|no )"):
        Optimizer(model_of(family, **changes), config_of("muon")).load_state_tensors(saved)


@pytest.mark.parametrize("lost", ["adamw/exp_avg/", "muon/momentum_buffer/"])
def test_missing_state_is_refused(model, lost):
    saved = saved_by(model, "muon")
    kind = lost.partition("/")[0]
    left = {name: tensor for name, tensor in saved.items() if not name.startswith(f"{kind}/")}
    with pytest.raises(CheckpointError, match=f"has no {kind} state for "):
        Optimizer(model, config_of("muon")).load_state_tensors(left)


@pytest.mark.parametrize("name", ["", "adamw", "adamw/exp_avg", "sgd/momentum/wte.weight", "adamw/exp_avg/unknown"])
def test_unknown_names_are_refused(model, name):
    with pytest.raises(CheckpointError, match="does not match this run's"):
        Optimizer(model, config_of("muon")).load_state_tensors({name: torch.zeros(())})
