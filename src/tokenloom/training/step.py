"""One training step: forward and backward pass, gradient clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tokenloom.compute.parallel import World
from tokenloom.compute.runtime import Runtime, seed_step
from tokenloom.compute.sharded_tensors import whole
from tokenloom.compute.shards import Shards
from tokenloom.compute.strategies import OneProcess, Parallelism
from tokenloom.config import Config
from tokenloom.data.batches import Batches
from tokenloom.data.token_reader import TokenReader
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import DivergedError
from tokenloom.model import GPT
from tokenloom.run_folder import RunFolder
from tokenloom.training.batch_shares import micro_batch_size
from tokenloom.training.optimizer import Optimizer

# At this loss scale or below, a gradient that is not finite in fp16 is not caused by the scale.
MIN_LOSS_SCALE = 1.0

Votes = Callable[[], Sequence[float]]
"""What this process contributes to decisions that all processes make together, asked for after the backward pass."""


@dataclass
class Counters:
    """What a checkpoint saves besides weights and optimizer state; the field names are the keys of its state.json."""

    step: int = 0
    """Finished steps."""
    tokens: int = 0
    """Training tokens seen."""
    seconds: float = 0.0
    """Wall-clock time of the run, earlier sessions included."""
    best_step: int | None = None
    best_val_loss: float | None = None
    evaluations_without_gain: int = 0
    """Consecutive evaluations without a new best validation loss."""
    loss_scale: dict[str, Any] = field(default_factory=dict[str, Any])
    """State of the gradient scaler; empty without fp16."""
    unreported_nats: float = 0.0
    """Summed training loss since the last metrics record."""
    unreported_tokens: int = 0


@dataclass
class TrainState:
    """Everything that training reads and updates."""

    config: Config
    run: RunFolder
    model: GPT
    optimizer: Optimizer
    batches: Batches
    validation: TokenReader | None
    tokenizer: Tokenizer
    runtime: Runtime
    world: World
    counters: Counters
    peak_flops: float
    """Measured FLOP/s of the device."""
    flops_per_token: float
    parallelism: Parallelism = field(default_factory=OneProcess)

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.runtime.device.type, enabled=self.runtime.precision == "fp16")
        if self.counters.loss_scale:
            self.scaler.load_state_dict(self.counters.loss_scale)

    @property
    def is_sharded(self) -> bool:
        """Whether each process has a part of the model only."""
        return isinstance(self.parallelism, Shards)

    @property
    def micro_batch_size(self) -> int:
        return micro_batch_size(self.config.train, self.world.world_size)

    @property
    def tokens_per_step(self) -> int:
        return self.config.train.batch_size * self.config.model.block_size

    def change_settings(self, **train: object) -> None:
        """Change settings of [train], here and in the run's config.toml, so that a resumed run has them as well."""
        self.config = self.config.with_values(train=train)
        self.optimizer.config = self.config.train
        self.world.on_main(lambda: self.run.write_config(self.config))


@dataclass(frozen=True)
class StepResult:
    """What one training step reports."""

    nats: float
    """Training loss before the update, summed over the tokens of the step."""
    lr: float
    muon_lr: float | None
    """None without Muon."""
    grad_norm: float
    """Global gradient norm before clipping."""
    votes: Sequence[float] = ()
    """The sum of each vote over all processes."""


def train_step(state: TrainState, step: int, votes: Votes = tuple) -> StepResult:
    """Update the weights once, after `step` finished steps. By default there are no `votes`.

    Raises `DivergedError` if the loss or the gradient is not finite; the weights are not updated in that case.
    """
    seed_step(state.config.train.seed, step, state.world.rank)
    while True:
        nats, counted = compute_gradient(state, step, votes)
        for optimizer in state.optimizer.parts.values():
            state.scaler.unscale_(optimizer)
        with state.world.errors_named():
            grad_norm = _clip_gradient(state.model, state.config.train.grad_clip)
        if math.isfinite(grad_norm) and math.isfinite(nats):
            break
        if state.scaler.get_scale() <= MIN_LOSS_SCALE:
            message = _non_finite_message(state, step, nats, grad_norm)
            raise DivergedError(message, nats / state.tokens_per_step, grad_norm)
        state.scaler.update()  # fp16 overflowed: repeat the batch with a smaller scale
    with state.world.errors_named():
        rates = state.optimizer.step(step)
    if state.scaler.is_enabled():
        state.scaler.update()
        state.counters.loss_scale = state.scaler.state_dict()
    return StepResult(nats, rates["adamw"], rates.get("muon"), grad_norm, counted)


def compute_gradient(state: TrainState, step: int, votes: Votes = tuple) -> tuple[float, Sequence[float]]:
    """Set every parameter's gradient to that of the step's mean loss.

    Returns the loss in nats, summed over the step, and the sums of the votes. A loss that is not finite in one process
    is not finite in all of them, and so is its gradient.
    """
    device = state.runtime.device
    state.optimizer.zero_grad()
    ids, targets = state.batches.batch(step, state.world.rank, state.world.world_size)
    nats = torch.zeros((), device=device)
    state.model.train()
    parts = list(
        zip(torch.split(ids, state.micro_batch_size), torch.split(targets, state.micro_batch_size), strict=True)
    )
    for number, (micro_ids, micro_targets) in enumerate(parts, start=1):
        with state.parallelism.micro_batch(is_last=number == len(parts)):
            with state.runtime.autocast():
                loss = state.model.loss(micro_ids.to(device), micro_targets.to(device), "sum")
            # Divide by the token count of the whole step, so that micro-batches and ranks add up to one mean.
            state.scaler.scale(loss / state.tokens_per_step).backward()  # pyright: ignore  # torch does not annotate it
            nats += loss.detach()
    return _summed(state.world, nats, votes)


def _summed(world: World, nats: Tensor, votes: Votes) -> tuple[float, Sequence[float]]:
    """The sums over all processes, in the one reduction that a step has besides that of its gradient."""
    if world.world_size == 1:
        return nats.item(), votes()
    own = torch.tensor(votes(), dtype=torch.float64).to(nats.device)
    sums = world.all_reduce(torch.cat([nats.double().reshape(1), own])).cpu()
    return sums[0].item(), [count.item() for count in sums[1:]]


def _clip_gradient(model: GPT, max_norm: float | None) -> float:
    """Scale the gradient down to a global norm of `max_norm`; returns its norm before."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), max_norm, norm)
    return norm.item()


def _non_finite_message(state: TrainState, step: int, nats: float, grad_norm: float) -> str:
    starts = ", ".join(f"{start:,}" for start in state.batches.starts(step)[:4])
    quantity = "loss" if not math.isfinite(nats) else "gradient"
    return (
        f"step {step + 1:,}: the {quantity} is not finite (loss {nats / state.tokens_per_step:g}, "
        f"gradient norm {grad_norm:g}; batch of windows at tokens {starts} …). The weights were not updated; the last "
        "checkpoint is valid. Lower --train.learning-rate, or use --train.precision fp32."
    )
