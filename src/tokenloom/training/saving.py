"""Checkpoints of a run: the newest ones, for resuming, and the weights of the best and of the first evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from tokenloom.compute.environment import Environment
from tokenloom.training.display import Display
from tokenloom.training.step import TrainState
from tokenloom.weights.checkpoint import Checkpoint, rotate_best, rotate_checkpoints, save_checkpoint
from tokenloom.weights.sharded_checkpoint import save_sharded_checkpoint


def save(state: TrainState, display: Display) -> None:
    """Save everything that a resumed run needs, and remove old checkpoints.

    Every process has to call this, and an error is raised in all of them.
    """
    checkpoint = write_checkpoint(state, state.run.checkpoints)
    state.world.on_main(lambda: rotate_checkpoints(state.run.checkpoints, state.config.train.keep_checkpoints))
    display.notice(f"saved {checkpoint.path}")


def save_best(state: TrainState) -> None:
    """Save the weights as the best so far, as `save` does, replacing the previous best.

    That of the first evaluation is kept, so that a run can be compared with its beginning.
    """
    best = write_best(state, state.run.checkpoints)
    state.world.on_main(lambda: rotate_best(state.run.checkpoints, best.path))


def write_best(state: TrainState, folder: Path) -> Checkpoint:
    """Write the weights as the best checkpoint into `folder`, as `save` does."""
    return _write(state, folder, {"val_loss": state.counters.best_val_loss}, kind="best")


def write_checkpoint(state: TrainState, folder: Path) -> Checkpoint:
    """Write weights, optimizer state, counters and environment as a checkpoint into `folder`, as `save` does."""
    saved = {**asdict(state.counters), "environment": asdict(Environment.of(state.runtime, state.world))}
    return _write(state, folder, saved, optimizer=state.optimizer.state_tensors())


def _write(
    state: TrainState,
    folder: Path,
    saved: Mapping[str, object],
    optimizer: Mapping[str, Tensor] | None = None,
    kind: str = "step",
) -> Checkpoint:
    """Write a checkpoint: all processes if each has a part of the model, otherwise rank 0."""
    step, model, tokenizer, world = state.counters.step, state.model, state.tokenizer, state.world
    if state.is_sharded:
        return save_sharded_checkpoint(
            folder, step, model, tokenizer, world, state=saved, optimizer=optimizer, kind=kind
        )
    return world.on_main(
        lambda: save_checkpoint(folder, step, model, tokenizer, state=saved, optimizer=optimizer, kind=kind)
    )
