"""Checkpoints of a run: the newest ones, for resuming, and the one with the best validation loss."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tokenloom.compute.environment import Environment
from tokenloom.training.display import Display
from tokenloom.training.step import TrainState
from tokenloom.weights.checkpoint import Checkpoint, rotate_checkpoints, save_checkpoint


def save(state: TrainState, display: Display) -> None:
    """Save everything that a resumed run needs, and remove old checkpoints.

    Every process has to call this, and an error is raised in all of them.
    """

    def write() -> None:
        checkpoint = write_checkpoint(state, state.run.checkpoints)
        rotate_checkpoints(state.run.checkpoints, state.config.train.keep_checkpoints)
        display.notice(f"saved {checkpoint.path}")

    state.world.on_main(write)


def save_best(state: TrainState) -> None:
    """Save the weights as the best so far, replacing the previous best, as `save` does."""

    def write() -> None:
        write_best(state, state.run.checkpoints)
        rotate_checkpoints(state.run.checkpoints, 1, kind="best")

    state.world.on_main(write)


def write_best(state: TrainState, folder: Path) -> None:
    """Write the weights as the best checkpoint into `folder`."""
    best = {"val_loss": state.counters.best_val_loss}
    save_checkpoint(folder, state.counters.step, state.model, state.tokenizer, state=best, kind="best")


def write_checkpoint(state: TrainState, folder: Path) -> Checkpoint:
    """Write weights, optimizer state, counters and environment as a checkpoint into `folder`."""
    return save_checkpoint(
        folder,
        state.counters.step,
        state.model,
        state.tokenizer,
        state={**asdict(state.counters), "environment": asdict(Environment.of(state.runtime, state.world))},
        optimizer=state.optimizer.state_tensors(),
    )
