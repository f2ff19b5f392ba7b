"""What both families share: the interface, the cache, initialization, and activation checkpointing."""

import pytest
import torch

from tokenloom.model import FAMILIES, GPT, build
from tokenloom.model.language_model import LanguageModel


def test_every_family_has_the_interface_of_a_language_model(model):
    interface: LanguageModel = model
    ids = torch.arange(6).view(2, 3)
    assert interface(ids, interface.new_cache(2)).shape == (2, 3, model.config.vocabulary)
    assert interface.hidden(ids).shape == (2, 3, model.config.n_embd)
    assert interface.loss(ids, ids).shape == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_build_creates_the_family_of_the_configuration(model_of, family):
    built = build(model_of(family).config)
    assert type(built) is FAMILIES[family]
    assert isinstance(built, GPT)


def test_init_weights_resets_the_weights(model):
    model.init_weights(torch.Generator().manual_seed(3))
    expected = build(model.config, torch.Generator().manual_seed(3)).state_dict()
    for name, tensor in model.state_dict().items():
        if "ln_" not in name:  # LayerNorm is initialized by torch
            assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_activation_checkpointing_gives_identical_gradients_also_with_dropout(model_of, family):
    """Bit for bit: the dropout masks are the same, and all sums are in the same order."""
    ids, targets = torch.randint(0, 60, (2, 3, 16), generator=torch.Generator().manual_seed(2))

    def gradients(recompute):
        model = model_of(family, dropout=0.2).train()
        runs = []
        for block in model.h:
            block.mlp.register_forward_hook(lambda *_: runs.append(1))
        model.activation_checkpointing = recompute
        torch.manual_seed(8)
        loss = model.loss(ids, targets)
        loss.backward()
        assert len(runs) == len(model.h) * (2 if recompute else 1)
        return [loss, *(parameter.grad for parameter in model.parameters())]

    for recomputed, kept in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(recomputed, kept)
