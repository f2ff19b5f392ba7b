"""The losses, training loops and loss plot of section 5.2 and appendix D."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.book.data import BatchLoader, BookTokenizer
from tokenloom.book.generation import generate_and_print_sample
from tokenloom.evaluation.loss import loss_over_batches
from tokenloom.metrics import MetricsRecord
from tokenloom.model.gpt2 import GPT2


def calc_loss_batch(input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: torch.device | str) -> Tensor:
    """Mean cross-entropy of a batch in nats, differentiable (section 5.1.3)."""
    logits = model(input_batch.to(device))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), target_batch.to(device).flatten())


def calc_loss_loader(
    data_loader: Iterable[tuple[Tensor, Tensor]],
    model: GPT2,
    device: torch.device | str,
    num_batches: int | None = None,
) -> float:
    """The mean of the mean losses of the first `num_batches` batches, or of all; NaN without batches (section 5.1.3).

    Dropout is off during evaluation.
    """
    return loss_over_batches(model.to(device), data_loader, num_batches)


def evaluate_model(
    model: GPT2, train_loader: BatchLoader, val_loader: BatchLoader, device: torch.device | str, eval_iter: int
) -> tuple[float, float]:
    """Training and validation loss over `eval_iter` batches each, without dropout (section 5.2)."""
    # Iterating over the shuffled training loader consumes random numbers of the training run, as in the book.
    train_loss = calc_loss_loader(train_loader, model, device, eval_iter)
    return train_loss, calc_loss_loader(val_loader, model, device, eval_iter)


def train_model_simple(
    model: GPT2,
    train_loader: BatchLoader,
    val_loader: BatchLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: BookTokenizer,
) -> tuple[list[float], list[float], list[int]]:
    """The training loop of section 5.2: (training losses, validation losses, tokens seen) at each evaluation."""
    evaluation = _Evaluation(train_loader, val_loader, device, eval_freq, eval_iter, start_context, tokenizer)
    history = _train(model, optimizer, num_epochs, evaluation, before_update=lambda step: None)
    return history.train_losses, history.val_losses, history.tokens_seen


def train_model(
    model: GPT2,
    train_loader: BatchLoader,
    val_loader: BatchLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: BookTokenizer,
    warmup_steps: int,
    initial_lr: float = 3e-05,
    min_lr: float = 1e-6,
) -> tuple[list[float], list[float], list[int], list[float]]:
    """The training loop of appendix D, with warmup, cosine decay and gradient clipping.

    Returns the results of `train_model_simple` and the learning rate of each step. The peak learning rate is the
    optimizer's. Gradients are clipped at every step, during warmup too; `warmup_steps=0` disables warmup.
    """
    peak_lr: float = optimizer.param_groups[0]["lr"]
    total_steps = len(train_loader) * n_epochs
    learning_rates: list[float] = []

    def before_update(step: int) -> None:
        learning_rates.append(_learning_rate(step, warmup_steps, total_steps, peak_lr, initial_lr, min_lr))
        for group in optimizer.param_groups:
            group["lr"] = learning_rates[-1]
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

    evaluation = _Evaluation(train_loader, val_loader, device, eval_freq, eval_iter, start_context, tokenizer)
    history = _train(model, optimizer, n_epochs, evaluation, before_update)
    return history.train_losses, history.val_losses, history.tokens_seen, learning_rates


def plot_losses(
    epochs_seen: Sequence[float] | Tensor,
    tokens_seen: Sequence[int],
    train_losses: Sequence[float],
    val_losses: Sequence[float],
    path: str | Path = "loss-plot.pdf",
) -> None:
    """Save the plot of section 5.2: losses over epochs (bottom axis) and tokens seen (top axis)."""
    from tokenloom.reporting.matplotlib_plots import plot_losses as plot

    points = zip(epochs_seen, tokens_seen, train_losses, val_losses, strict=True)
    records = [
        MetricsRecord(step=i, tokens=tokens, epoch=float(epoch), seconds=0.0, train_loss=train, val_loss=val)
        for i, (epoch, tokens, train, val) in enumerate(points)
    ]
    plot(records, [Path(path)])


@dataclass(frozen=True)
class _Evaluation:
    """The data of a training run, and when and how it is evaluated."""

    train_loader: BatchLoader
    val_loader: BatchLoader
    device: torch.device | str
    eval_freq: int
    """Steps between evaluations."""
    eval_iter: int
    """Batches of each loader in an evaluation."""
    start_context: str
    """Prompt of the sample after each epoch."""
    tokenizer: BookTokenizer


@dataclass
class _History:
    train_losses: list[float] = field(default_factory=list[float])
    val_losses: list[float] = field(default_factory=list[float])
    tokens_seen: list[int] = field(default_factory=list[int])


def _train(
    model: GPT2,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    evaluation: _Evaluation,
    before_update: Callable[[int], None],
) -> _History:
    # Not `training.loop`, which reseeds at every step to make runs resumable: the book's results depend on one
    # random number generator that shuffles batches, applies dropout and selects evaluation batches in turn.
    device = evaluation.device
    history, tokens_seen, step = _History(), 0, -1
    for epoch in range(epochs):
        model.train()
        for input_batch, target_batch in evaluation.train_loader:
            optimizer.zero_grad()
            torch.autograd.backward(calc_loss_batch(input_batch, target_batch, model, device))
            step += 1
            before_update(step)
            optimizer.step()
            tokens_seen += input_batch.numel()
            if step % evaluation.eval_freq == 0:
                train_loss, val_loss = evaluate_model(
                    model, evaluation.train_loader, evaluation.val_loader, device, evaluation.eval_iter
                )
                history.train_losses.append(train_loss)
                history.val_losses.append(val_loss)
                history.tokens_seen.append(tokens_seen)
                print(f"Ep {epoch + 1} (Step {step:06d}): Train loss {train_loss:.3f}, Val loss {val_loss:.3f}")
        generate_and_print_sample(model, evaluation.tokenizer, device, evaluation.start_context)
    return history


def _learning_rate(step: int, warmup_steps: int, total_steps: int, peak: float, initial: float, least: float) -> float:
    """The schedule of appendix D; unlike `training.schedule`, its warmup reaches the peak at step `warmup_steps`."""
    if step < warmup_steps:
        return initial + step * (peak - initial) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * progress))
