"""Resuming a run: which settings may change, what is said about a change, and the checkpoint to continue from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import cast

from tokenloom.compute.environment import Environment
from tokenloom.config import Config, Settings, TrainConfig, config_keys
from tokenloom.data.shards import Shards
from tokenloom.errors import CheckpointError
from tokenloom.reporting.formatting import counted
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.saved_config import saved_model_config
from tokenloom.training.budget import Limit
from tokenloom.training.display import Display
from tokenloom.training.step import Counters
from tokenloom.weights.checkpoint import Checkpoint, list_checkpoints, newest_checkpoint

MAX_VALUE_LENGTH = 60  # of a setting that is quoted in a message
NOT_EXACT = "the result is not bit-identical to that of an uninterrupted run"

# What may change when a run is resumed. Every setting is in one of the three tables, by its own name or by that of its
# section. A change that is refused, and why:
REFUSED: Mapping[str, str] = {
    "model": "the weights were trained with it",
    "data": "the token shards were prepared with it",
    "data.order": "it determines which windows were used so far",
    "data.stride": "it determines which windows were used so far",
    "train.seed": "it determines which windows were used so far",
    "train.optimizer": "the optimizer state belongs to it",
    "train.init_from": "it applies to the first step only",
    "train.init_optimizer": "it applies to the first step only",
}
# A change with which training continues, and what a notice says about it:
ANNOUNCED: Mapping[str, str] = {
    "data.sources": "the text itself must be the same",
    "train.max_steps": "the learning rate schedule ends there",
    "train.earlier_max_steps": "the learning rate continues as if the number of steps had not changed before",
    "train.batch_size": "training continues with the next window of the epoch, evaluations use more or fewer windows",
    "train.micro_batch_size": NOT_EXACT,
    "train.strategy": NOT_EXACT,
    "train.replicas": NOT_EXACT,
    "train.compile": NOT_EXACT,
    **dict.fromkeys(
        ("train.learning_rate", "train.muon_learning_rate", "train.min_lr", "train.initial_lr"),
        "it applies to the steps that are left",
    ),
    **dict.fromkeys(
        ("train.schedule", "train.warmup_steps", "train.decay_fraction"),
        "the learning rate continues as if this had been the schedule from the start",
    ),
    **dict.fromkeys(
        ("train.weight_decay", "train.beta1", "train.beta2", "train.grad_clip"),
        "it applies to the steps that are left",
    ),
    "train.eval_batches": "validation losses before and after it are not comparable",
}
# A change that does not affect the weights, or that the environment shows, such as the precision that "auto" selects:
UNANNOUNCED = frozenset(
    (
        "data.workers",
        "sample",
        "train.activation_checkpointing",
        "train.device",
        "train.eval_interval",
        "train.keep_checkpoints",
        "train.log_interval",
        "train.patience",
        "train.precision",
        "train.save_interval",
        "train.tensorboard",
    )
)


def newest_run(parent: Path) -> RunFolder:
    """The newest run in a folder; raises `CheckpointError` if there is none."""
    run = RunFolder.newest(parent)
    if run is None:
        raise CheckpointError(f"there is no run in {parent}/ to resume. Name one: tokenloom train --resume RUN")
    return run


def resumed_config(run: RunFolder, settings: Settings) -> Config:
    """The configuration of a run with new settings; raises `CheckpointError` for one that cannot change."""
    before = run.config()
    config = Config.of(before.model_dump(), settings)
    for key, old, new in _changes(before, config):
        if reason := _entry(REFUSED, key):
            raise _refusal(run, key, old, new, f", and {reason}")
    return config


def with_limit(
    run: RunFolder, config: Config, seconds: float, started: float, settings: Settings
) -> tuple[Config, Limit]:
    """`resumed_config` with the steps of the run's plan, which the returned limit will change.

    The limit has at most the `max_steps` of `settings`, if they are set.
    """
    has_steps = "max_steps" in settings.get("train", {})
    planned = run.config().train
    steps = {"max_steps": planned.max_steps, "earlier_max_steps": planned.earlier_max_steps}
    limit = Limit(started + seconds, seconds, config.train.max_steps if has_steps else None)
    return config.with_values(train=steps), limit


def checkpoint_to_resume(
    run: RunFolder, config: Config, shards: Shards, environment: Environment, display: Display, most_steps: int | None
) -> Checkpoint | None:
    """The newest valid checkpoint of a run; None if it was stopped before its first one.

    `most_steps` is None if a time limit decides how many steps the run will have. There is a notice for each change
    that affects the results. Raises `CheckpointError` if the run has another identity, no valid checkpoint, or nothing
    left to do.
    """
    _refuse_other_identity(run, identity_of(config, shards))
    checkpoint, notices = newest_checkpoint(run.checkpoints)
    for notice in notices:
        display.notice(notice)
    if checkpoint is None:
        if list_checkpoints(run.checkpoints):
            raise CheckpointError(f"no checkpoint of {run.path} is valid. Start a new run.", topic="no checkpoint")
        display.notice("no checkpoint was saved before the run stopped; starting at step 0")
        return None
    _refuse_if_finished(run, config, checkpoint, most_steps)
    if checkpoint.step == most_steps or is_out_of_patience(config.train, counters_of(checkpoint)):
        display.notice(f"all steps of {run.path} are done; continuing with the final evaluation")
    for key, old, new in _changes(run.config(), config):
        if consequence := _entry(ANNOUNCED, key):
            display.notice(f"{key} was {_shorten(old)}, now it is {_shorten(new)}: {consequence}")
    for change in environment.changes_since(_saved_environment(checkpoint)):
        display.notice(f"{change}: {NOT_EXACT}")
    return checkpoint


def identity_of(config: Config, shards: Shards) -> RunIdentity:
    """What must not change when a run is resumed."""
    return RunIdentity(
        dataset=shards.fingerprint,
        tokenizer=shards.tokenizer.fingerprint,
        model=config.model.model_dump(),
        seed=config.train.seed,
        order=[config.data.order, config.data.stride],
        optimizer=config.train.optimizer,
        shards=str(shards.path.resolve()),
    )


def counters_of(checkpoint: Checkpoint) -> Counters:
    """The counters that a checkpoint has saved; the others have their defaults."""
    saved = checkpoint.state()
    return Counters(**{field.name: saved[field.name] for field in fields(Counters) if field.name in saved})


def is_out_of_patience(train: TrainConfig, counters: Counters) -> bool:
    """Whether early stopping applies: too many consecutive evaluations without a better validation loss."""
    return train.patience is not None and counters.evaluations_without_gain >= train.patience


def _changes(before: Config, now: Config) -> Iterator[tuple[str, object, object]]:
    """The settings whose values differ, each with both of them."""
    for key in config_keys():
        section, name = key.split(".")
        old, new = (getattr(getattr(config, section), name) for config in (before, now))
        if old != new:
            yield key, old, new


def _entry(table: Mapping[str, str], key: str) -> str | None:
    """The entry of a setting; that of its section applies if no table has one for the setting itself."""
    if key in REFUSED or key in ANNOUNCED or key in UNANNOUNCED:
        return table.get(key)
    return table.get(key.split(".")[0])


def _refuse_other_identity(run: RunFolder, current: RunIdentity) -> None:
    """Check that a run is resumed with the data and the settings that it was started with."""
    saved = run.identity()
    if saved is None:
        raise CheckpointError(f"{run.path} cannot be resumed: it has no {run.identity_file.name}. Start a new run.")
    for field in fields(RunIdentity):
        before, now = getattr(saved, field.name), getattr(current, field.name)
        if field.name == "model":  # an earlier version can have had other settings
            before = saved_model_config(before).model_dump()
        if field.name != "shards" and before != now:  # token shards may be moved
            raise _refusal(run, field.name, before, now)


def _refuse_if_finished(run: RunFolder, config: Config, checkpoint: Checkpoint, most_steps: int | None) -> None:
    """Raise `CheckpointError` if there is nothing left to do.

    A run that was stopped between its last step and its report is not finished: it lacks the final evaluation.
    """
    if most_steps is not None and checkpoint.step > most_steps:
        raise CheckpointError(
            f"{run.path} has made {checkpoint.step:,} steps already, more than --train.max-steps {most_steps:,}. "
            f"Omit it, or pass a number above {checkpoint.step:,}."
        )
    if checkpoint.step == most_steps and run.is_finished():
        raise CheckpointError(
            f"{run.path} is finished: {checkpoint.step:,} of {most_steps:,} steps. "
            f"To continue, raise the number of steps: --train.max-steps {2 * checkpoint.step}. Or train for a time: "
            "--budget 5m."
        )
    if is_out_of_patience(config.train, counters_of(checkpoint)) and run.is_finished():
        raise CheckpointError(
            f"{run.path} is finished: it stopped early at step {checkpoint.step:,}, with no better validation loss in "
            f"{counted(counters_of(checkpoint).evaluations_without_gain, 'evaluation')}. To continue, raise "
            "--train.patience, or disable it with --train.patience none."
        )


def _refusal(run: RunFolder, name: str, before: object, now: object, reason: str = "") -> CheckpointError:
    return CheckpointError(
        f"{run.path} cannot be resumed: its {name} was {_shorten(before)}, now it is {_shorten(now)}{reason}. "
        "Resume with the settings that it was started with, or start a new run.",
        topic="resuming",
    )


def _saved_environment(checkpoint: Checkpoint) -> Mapping[str, object]:
    """The environment of a checkpoint; empty if it is older than this record."""
    saved: object = checkpoint.state().get("environment")
    return cast("Mapping[str, object]", saved) if isinstance(saved, dict) else {}


def _shorten(value: object) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}…"
