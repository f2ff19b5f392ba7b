"""The training loop: batch, loss, gradient, update, and now and then a look at how it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokenloom.compute.parallel import World
from tokenloom.compute.runtime import Runtime, seed_step
from tokenloom.config import Config
from tokenloom.data.batches import Batches
from tokenloom.data.token_reader import TokenReader
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import Interrupted, TrainingError
from tokenloom.evaluation.loss import Measurement, measure
from tokenloom.generation.text import generate_text
from tokenloom.model import Model
from tokenloom.model.head import Reduction
from tokenloom.reporting.console import Display
from tokenloom.run_folder import CHECKPOINTS
from tokenloom.sampling_params import SamplingParams
from tokenloom.storage import write_text
from tokenloom.training.deadline import WORTH_IT, Deadline
from tokenloom.training.interrupt import StopRequest
from tokenloom.training.metrics_log import MetricsLog
from tokenloom.training.optimizer import Optimizer
from tokenloom.weights.checkpoint import rotate_checkpoints, save_checkpoint

CONFIG = "config.toml"
SMALLEST_LOSS_SCALE = 1.0  # below it, fp16 gradients that overflow are the model's fault and not the scale's


@dataclass
class Counters:
    """Where a run stands: all that a checkpoint remembers besides weights and optimizer."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_val_loss: float | None = None
    evaluations_without_gain: int = 0
    loss_scale: dict[str, Any] = field(default_factory=dict)
    unreported_nats: float = 0.0
    unreported_tokens: int = 0


@dataclass
class TrainState:
    """Everything that the loop works on."""

    config: Config
    run: Path
    model: Model
    loss: Callable[[Tensor, Tensor, Reduction], Tensor]
    optimizer: Optimizer
    batches: Batches
    validation: TokenReader | None
    tokenizer: Tokenizer
    runtime: Runtime
    world: World
    progress: Counters
    peak_flops: float
    flops_per_token: float
    deadline: Deadline | None = None
    """The end of a budget, at which the run is looked at once on the way."""

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.runtime.device.type, enabled=self.runtime.precision == "fp16")
        if self.progress.loss_scale:
            self.scaler.load_state_dict(self.progress.loss_scale)

    @property
    def micro_batch_size(self) -> int:
        share = self.config.train.batch_size // self.world.world_size
        return min(share, self.config.train.micro_batch_size or share)

    @property
    def tokens_per_step(self) -> int:
        return self.config.train.batch_size * self.config.model.block_size

    def replan(self, max_steps: int) -> None:
        """Train for another number of steps; the folder's config.toml says so, so that a resumed run does too."""
        self.config = self.config.with_values(train={"max_steps": max_steps})
        self.optimizer.config = self.config.train
        if self.world.is_main:
            write_text(self.run / CONFIG, self.config.to_toml())


def train_loop(trainee: TrainState, tracker: MetricsLog | None, display: Display, stop: StopRequest) -> None:
    """Train up to `max_steps`, recording, evaluating, sampling and saving on the way.

    Raises `Interrupted` after a requested stop has been saved, and `TrainingError` when the loss or the gradient is no
    longer a number; the weights have not seen it then. `tracker` is None in all processes but the main one.
    """
    config, progress = trainee.config.train, trainee.progress
    reviewed = trainee.deadline is None
    stopwatch = Stopwatch(progress.seconds)
    while progress.step < config.max_steps:
        with stopwatch.training():
            nats, lr, grad_norm = train_step(trainee, progress.step)
            trainee.runtime.synchronize()
        progress.step += 1
        progress.tokens += trainee.tokens_per_step
        progress.unreported_nats += nats
        progress.unreported_tokens += trainee.tokens_per_step
        display.stepped(progress.step, nats / trainee.tokens_per_step, trainee.tokens_per_step / stopwatch.last)

        if not reviewed and (reviewed := _is_review_due(trainee)):
            _keep_the_deadline(trainee, stopwatch, display)
            config = trainee.config.train
        finished = progress.step == config.max_steps
        record: dict[str, Any] = {}
        if finished or progress.step % config.log_interval == 0:
            record |= _training_record(trainee, stopwatch, lr, grad_norm)
        if looks := finished or progress.step % config.eval_every == 0:
            record |= _evaluation_record(trainee)
        out_of_patience = looks and _out_of_patience(trainee)
        progress.seconds = stopwatch.total()
        if record and tracker is not None:
            record = {**_position(trainee), **record}
            tracker.record(record)
            display.recorded(record)
            for sample in generate_samples(trainee) if looks else []:
                tracker.sample(sample)
                display.sampled(sample)
        if finished or out_of_patience or stop.requested or progress.step % config.save_every == 0:
            _save(trainee, display)
        if out_of_patience:
            display.notice(f"stopped early: no better validation loss in {config.patience} evaluations")
            return
        if stop.requested and not finished:
            raise Interrupted(
                f"stopped at step {progress.step:,} of {config.max_steps:,}; everything is saved. "
                f"Go on with: tokenloom train --resume {trainee.run}",
                stop.signal_number,
            )


def _is_review_due(trainee: TrainState) -> bool:
    assert trainee.deadline is not None
    due = trainee.deadline.is_review_due(trainee.config.train, trainee.progress.step)
    return trainee.world.broadcast(due)


def _keep_the_deadline(trainee: TrainState, stopwatch: Stopwatch, display: Display) -> None:
    """Change the number of steps, once, if the machine is not as fast as it was when they were planned."""
    assert trainee.deadline is not None
    done, planned = trainee.progress.step, trainee.config.train.max_steps
    further = trainee.deadline.steps_from_now(trainee.config.train, done, stopwatch.step_seconds)
    steps = trainee.world.broadcast(done + max(1, further))
    if abs(steps - planned) > WORTH_IT * planned:
        word = "slower" if steps < planned else "faster"
        display.notice(
            f"a step takes {stopwatch.step_seconds:.2g} s, {word} than planned: {steps:,} steps, not {planned:,}"
        )
        trainee.replan(steps)
        display.replanned(steps)


def train_step(trainee: TrainState, step: int) -> tuple[float, float, float]:
    """One update: the step's summed loss in nats, its learning rate, and the norm of its gradient before clipping."""
    seed_step(trainee.config.train.seed, step, trainee.world.rank)
    while True:
        nats = _gradients(trainee, step)
        for part in trainee.optimizer.parts.values():
            trainee.scaler.unscale_(part)
        norm = _clip(trainee.model, trainee.config.train.grad_clip)
        if math.isfinite(norm) and math.isfinite(nats):
            lr = trainee.optimizer.step(step)
            break
        if trainee.scaler.get_scale() <= SMALLEST_LOSS_SCALE:
            raise TrainingError(_non_finite_message(trainee, step, nats, norm))
        trainee.scaler.update()  # fp16 overflowed: the same batch again with a smaller scale
    if trainee.scaler.is_enabled():
        trainee.scaler.update()
        trainee.progress.loss_scale = trainee.scaler.state_dict()
    return nats, lr, norm


def estimate_seconds(trainee: TrainState) -> float:
    """A first guess at the time that is left to train, from the gradient of one step; nothing is updated.

    The first step of a process is slow, so a fast one is timed again.
    """
    seconds = math.inf
    for _ in range(2):
        before = time.perf_counter()
        _gradients(trainee, trainee.progress.step)
        trainee.runtime.synchronize()
        seconds = min(seconds, time.perf_counter() - before)
        if trainee.world.broadcast(seconds > 1):  # all processes take part in every gradient
            break
    trainee.optimizer.zero_grad()
    return seconds * (trainee.config.train.max_steps - trainee.progress.step)


def evaluate(trainee: TrainState, batches: int | None = None) -> Measurement | None:
    """The validation loss of the model as it is; None if no text was kept for validation."""
    if trainee.validation is None:
        return None
    size = trainee.micro_batch_size
    with trainee.runtime.autocast():
        return measure(
            trainee.model,
            trainee.validation,
            context=min(trainee.config.model.block_size, len(trainee.validation) - 1),
            batch_size=size,
            byte_lengths=trainee.tokenizer.byte_lengths,
            max_windows=None if batches is None else batches * size,
        )


def generate_samples(trainee: TrainState) -> list[dict[str, Any]]:
    """What the model writes after the fixed prompts, as it is now."""
    wanted = trainee.config.sample
    if wanted.max_new_tokens == 0:
        return []
    with trainee.runtime.autocast():
        completions = generate_text(
            trainee.model,
            trainee.tokenizer,
            wanted.prompts,
            max_new_tokens=wanted.max_new_tokens,
            sampling=SamplingParams(temperature=wanted.temperature, top_k=wanted.top_k),
            seed=wanted.seed,
        )
    where = {"step": trainee.progress.step, "tokens": trainee.progress.tokens, "seed": wanted.seed}
    return [
        {**where, "prompt": prompt, "text": completion.text}
        for prompt, (completion,) in zip(wanted.prompts, completions, strict=True)
    ]


class Stopwatch:
    """Times training apart from everything else, for a rate is tokens over the time spent training on them."""

    def __init__(self, seconds_before: float = 0.0) -> None:
        self._started = time.perf_counter() - seconds_before
        self.last = 0.0
        self._training = 0.0
        self._all: list[float] = []

    @contextmanager
    def training(self) -> Iterator[None]:
        """Time one update."""
        before = time.perf_counter()
        yield
        self.last = time.perf_counter() - before
        self._training += self.last
        self._all.append(self.last)

    @property
    def step_seconds(self) -> float:
        """Mean seconds of an update so far, but for the first, in which memory and compilers warm up."""
        timed = self._all[1:] or self._all
        return sum(timed) / len(timed)

    def take_training(self) -> float:
        """Seconds spent training since this was last asked."""
        seconds, self._training = self._training, 0.0
        return seconds

    def total(self) -> float:
        """Seconds of the run so far, earlier sittings included."""
        return time.perf_counter() - self._started


def _gradients(trainee: TrainState, step: int) -> float:
    """Put the gradient of the step's mean loss where the optimizer looks for it; gives the summed loss in nats."""
    device, total = trainee.runtime.device, trainee.tokens_per_step
    trainee.optimizer.zero_grad()
    ids, targets = trainee.batches.batch(step, trainee.world.rank, trainee.world.world_size)
    nats = torch.zeros((), device=device)
    trainee.model.train()
    micro_batches = zip(ids.split(trainee.micro_batch_size), targets.split(trainee.micro_batch_size), strict=True)
    for micro_ids, micro_targets in micro_batches:
        with trainee.runtime.autocast():
            loss = trainee.loss(micro_ids.to(device), micro_targets.to(device), "sum")
        # Divided by the tokens of the whole step, so that accumulation and ranks add up to one mean.
        trainee.scaler.scale(loss / total).backward()
        nats += loss.detach()
    trainee.world.all_reduce_gradients(trainee.model.parameters())
    return trainee.world.all_reduce(nats).item()


def _clip(model: Model, largest: float | None) -> float:
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), largest, norm)
    return norm.item()


def _non_finite_message(trainee: TrainState, step: int, nats: float, norm: float) -> str:
    starts = ", ".join(f"{start:,}" for start in trainee.batches.starts(step)[:4])
    what = "loss" if not math.isfinite(nats) else "gradient"
    return (
        f"step {step + 1:,}: the {what} is not a number (loss {nats / trainee.tokens_per_step:g}, "
        f"gradient norm {norm:g}; batch of windows at tokens {starts} …). The weights have not seen it; the last "
        "checkpoint is good. Lower train.learning_rate, or set train.precision to fp32."
    )


def _position(trainee: TrainState) -> dict[str, Any]:
    progress = trainee.progress
    return {
        "step": progress.step,
        "tokens": progress.tokens,
        "epoch": trainee.batches.epoch(progress.step),
        "seconds": progress.seconds,
    }


def _training_record(trainee: TrainState, stopwatch: Stopwatch, lr: float, grad_norm: float) -> dict[str, Any]:
    progress = trainee.progress
    rate = progress.unreported_tokens / max(stopwatch.take_training(), 1e-9)
    loss = progress.unreported_nats / progress.unreported_tokens
    progress.unreported_nats, progress.unreported_tokens = 0.0, 0
    return {
        "train/loss": loss,
        "lr": lr,
        "grad_norm": grad_norm,
        "tokens_per_sec": rate,
        "mfu": rate * trainee.flops_per_token / (trainee.peak_flops * trainee.world.world_size),
    }


def _evaluation_record(trainee: TrainState) -> dict[str, Any]:
    """Validation figures; also notes whether they are the best so far, and keeps the weights if they are."""
    measured = evaluate(trainee, trainee.config.train.eval_batches)
    if measured is None:
        return {}
    progress = trainee.progress
    if progress.best_val_loss is None or measured.loss < progress.best_val_loss:
        progress.best_step, progress.best_val_loss = progress.step, measured.loss
        progress.evaluations_without_gain = 0
        _save_best(trainee)
    else:
        progress.evaluations_without_gain += 1
    return {
        "val/loss": measured.loss,
        "val/perplexity": measured.perplexity,
        "val/bits_per_byte": measured.bits_per_byte,
    }


def _out_of_patience(trainee: TrainState) -> bool:
    patience = trainee.config.train.patience
    return patience is not None and trainee.progress.evaluations_without_gain >= patience


def _save(trainee: TrainState, display: Display) -> None:
    if trainee.world.is_main:
        folder = trainee.run / CHECKPOINTS
        optimizer = trainee.optimizer.state_tensors()
        state = asdict(trainee.progress)
        path = save_checkpoint(
            folder, trainee.progress.step, trainee.model, trainee.tokenizer, state=state, optimizer=optimizer
        ).path
        rotate_checkpoints(folder, trainee.config.train.keep_checkpoints)
        display.notice(f"saved {path}")
    trainee.world.barrier()


def _save_best(trainee: TrainState) -> None:
    if trainee.world.is_main:
        folder = trainee.run / CHECKPOINTS
        state = {"val_loss": trainee.progress.best_val_loss}
        save_checkpoint(folder, trainee.progress.step, trainee.model, trainee.tokenizer, state=state, kind="best")
        rotate_checkpoints(folder, 1, kind="best")
