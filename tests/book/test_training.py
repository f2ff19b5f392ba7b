"""Losses, training loops and the loss plot of the book."""

import math

import pytest
import torch

from tokenloom.book import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    get_encoding,
    plot_losses,
    train_model,
    train_model_simple,
)


def test_losses_of_batches_and_of_loaders_agree(model, loaders):
    train, val = loaders
    batches = [calc_loss_batch(x, y, model, "cpu").item() for x, y in val]
    # A sum over targets divided once, against torch's mean: the last bits differ.
    assert calc_loss_loader(val, model, "cpu") == pytest.approx(sum(batches) / len(batches), rel=1e-6)
    assert calc_loss_loader(val, model, "cpu", num_batches=1) == pytest.approx(batches[0], rel=1e-6)
    assert calc_loss_loader(val, model, "cpu", num_batches=999) == calc_loss_loader(val, model, "cpu")
    assert math.isnan(calc_loss_loader([], model, "cpu"))
    model.train()
    losses = evaluate_model(model, train, val, "cpu", eval_iter=1)
    assert losses[1] == pytest.approx(batches[0], rel=1e-6)  # without dropout
    assert model.training


def test_training_prints_the_lines_of_the_book_and_lowers_the_loss(model, loaders, capsys):
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    train, val = loaders
    losses, val_losses, seen = train_model_simple(
        model, train, val, optimizer, "cpu", num_epochs=2, eval_freq=5, eval_iter=2,
        start_context="It was", tokenizer=get_encoding("gpt2"),
    )  # fmt: skip
    steps = 2 * len(train)
    assert len(losses) == len(val_losses) == len(seen) == math.ceil(steps / 5)
    assert seen == [64 * (step + 1) for step in range(0, steps, 5)]
    assert losses[-1] < losses[0] - 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Ep 1 (Step 000000): Train loss {losses[0]:.3f}, Val loss {val_losses[0]:.3f}"
    assert sum(line.startswith("It was") for line in lines) == 2


def test_the_loop_of_appendix_d_uses_warmup_and_cosine_decay_as_in_the_book(model, loaders, capsys):
    train, val = loaders
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    epochs, warmup = 2, 7
    *_, rates = train_model(
        model, train, val, optimizer, "cpu", epochs, 50, 1, "It was", get_encoding("gpt2"),
        warmup_steps=warmup, initial_lr=1e-5, min_lr=1e-5,
    )  # fmt: skip
    total = epochs * len(train)
    assert len(rates) == total
    assert rates[0] == 1e-5
    assert rates[warmup] == pytest.approx(1e-3)  # the peak comes at step `warmup`, not before
    assert rates[1] - rates[0] == pytest.approx((1e-3 - 1e-5) / warmup)
    half = warmup + (total - warmup) / 2
    cosine = 1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * (math.floor(half) - warmup) / (total - warmup)))
    assert rates[math.floor(half)] == pytest.approx(cosine)
    assert all(later < earlier for earlier, later in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_warmup_can_be_disabled(model, loaders, capsys):
    train, val = loaders
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    *_, rates = train_model(
        model, train, val, optimizer, "cpu", 1, 50, 1, "It was", get_encoding("gpt2"), warmup_steps=0
    )
    assert rates[0] == pytest.approx(1e-3)


def test_the_loss_plot_is_saved(tmp_path):
    plot_losses(
        torch.linspace(0, 2, 4), [10, 20, 30, 40], [3.0, 2.0, 1.5, 1.0], [3.0, 2.5, 2.4, 2.6], tmp_path / "p.pdf"
    )
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")
