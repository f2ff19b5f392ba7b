"""A whole run: from its configuration, through the loop, to the folder that it leaves behind."""

from __future__ import annotations

import json
import shlex
import sys
import time
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from tokenloom.compute.parallel import World, destroy_process_group, init_process_group
from tokenloom.compute.runtime import (
    Runtime,
    available_memory,
    choose_runtime,
    compile_loss,
    peak_flops,
    peak_memory_mb,
    tune_malloc,
)
from tokenloom.config import Config
from tokenloom.config_files import read_toml
from tokenloom.data.batches import Batches
from tokenloom.data.shards import Shards
from tokenloom.errors import CheckpointError, ConfigError, TrainingError
from tokenloom.evaluation.baselines import baselines
from tokenloom.model import build
from tokenloom.reporting.console import Display, QuietDisplay
from tokenloom.reporting.report import write_report
from tokenloom.run_folder import CHECKPOINTS
from tokenloom.storage import write_text
from tokenloom.training.budget import plan_steps
from tokenloom.training.init_from import build_initial_model, initial_optimizer_state
from tokenloom.training.interrupt import StopRequest
from tokenloom.training.loop import CONFIG, Counters, TrainState, estimate_seconds, evaluate, train_loop
from tokenloom.training.metrics_log import METRICS, MetricsLog, read_records
from tokenloom.training.optimizer import Optimizer
from tokenloom.training.preflight import Estimate, preflight
from tokenloom.weights.checkpoint import Checkpoint, list_checkpoints, newest_checkpoint

IDENTITY = "identity.json"


def train_run(
    config: Config,
    shards: Shards,
    run: Path,
    *,
    resume: bool = False,
    deadline: float | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Train, and leave config.toml, metrics, samples, checkpoints, plots and report in `run`; gives the summary.

    With `resume` the run goes on from its newest valid checkpoint, bit for bit as if it had never stopped. A
    `deadline` (`time.time`) fixes `max_steps`. Under torchrun every process calls this; the main one's folder counts,
    and the others get an empty summary. Raises `TrainingError`, `CheckpointError`, `UsageError`.
    """
    config = _with_vocabulary(config, shards)
    world = init_process_group()
    tune_malloc()
    display = display if display is not None and world.is_main else QuietDisplay()
    try:
        run = world.broadcast(run)
        runtime = choose_runtime(config.train.device, config.train.precision, world.local_rank)
        estimate = preflight(config, shards, world.world_size)
        _refuse_if_too_large(estimate, runtime)
        checkpoint = _checkpoint_to_resume(run, config, shards, display) if resume else None
        to_beat = _to_beat(run, shards)
        planned = None
        with StopRequest() as stop:
            if deadline is not None and checkpoint is None:
                timed = _trainee(config, shards, run, runtime, world, estimate, None)
                steps, planned = plan_steps(timed, deadline)
                config = config.with_values(train={"max_steps": world.broadcast(steps)})
                del timed
            if world.is_main:
                _open_folder(run, config, shards, to_beat)
            trainee = _trainee(config, shards, run, runtime, world, estimate, checkpoint)
            trainee.deadline = planned
            display.started(_plan(trainee, shards, estimate, deadline, to_beat))
            with _tracker(trainee) as tracker:
                train_loop(trainee, tracker, display, stop)
        world.barrier()  # the last checkpoint is written by then
        summary = _summary(trainee, estimate)
        if world.is_main:
            write_text(run / "summary.json", json.dumps(summary, indent=2) + "\n")
            write_report(run)
        display.finished(summary)
        return summary if world.is_main else {}
    finally:
        destroy_process_group()


def read_run_config(run: Path) -> Config:
    """The configuration that a run was started with; raises `CheckpointError` if `run` is none."""
    if not (run / CONFIG).exists():
        raise CheckpointError(f"{run} is not a run: it has no {CONFIG}. Name a folder that tokenloom train made.")
    return Config.of(read_toml(run / CONFIG))


def _with_vocabulary(config: Config, shards: Shards) -> Config:
    """Fill in the vocabulary, or make sure that the one asked for can hold every token."""
    known, wanted = shards.tokenizer.vocab_size, config.model.vocab_size
    if wanted is not None and wanted < known:
        raise ConfigError(
            f"model.vocab_size {wanted:,} is smaller than the tokenizer's {known:,} tokens. Leave it out, or raise it."
        )
    return config.with_values(model={"vocab_size": wanted or known})


def _refuse_if_too_large(estimate: Estimate, runtime: Runtime) -> None:
    available = available_memory(runtime.device)
    if estimate.memory_bytes > available:
        raise TrainingError(
            f"training needs about {estimate.memory_bytes / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free. "
            "Use a smaller --preset, --train.micro-batch-size 1, or --train.activation-checkpointing."
        )


def _trainee(
    config: Config,
    shards: Shards,
    run: Path,
    runtime: Runtime,
    world: World,
    estimate: Estimate,
    checkpoint: Checkpoint | None,
) -> TrainState:
    """A model, its optimizer and its batches: new, or as a checkpoint left them."""
    if checkpoint:
        model = checkpoint.model()
    elif config.train.init_from:
        model = build_initial_model(config).train()
    else:
        model = build(config.model, torch.Generator().manual_seed(config.train.seed))
    model.to(runtime.device)
    model.activation_checkpointing = config.train.activation_checkpointing
    optimizer = Optimizer(model, config.train)
    state: dict[str, Any] = {}
    if checkpoint:
        optimizer.load_state_tensors(checkpoint.optimizer_tensors())
        state = checkpoint.state()
    elif config.train.init_optimizer:
        optimizer.load_state_tensors(initial_optimizer_state(config))
    return TrainState(
        config=config,
        run=run,
        model=model,
        loss=compile_loss(model.loss) if config.train.compile else model.loss,
        optimizer=optimizer,
        batches=Batches(
            shards.train,
            block_size=config.model.block_size,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            order=config.data.order,
            stride=config.data.stride,
        ),
        validation=shards.val if shards.val.n_tokens > 1 else None,
        tokenizer=shards.tokenizer,
        runtime=runtime,
        world=world,
        progress=Counters(**{field.name: state[field.name] for field in fields(Counters) if field.name in state}),
        peak_flops=peak_flops(runtime),
        flops_per_token=estimate.flops_per_token,
    )


def _tracker(trainee: TrainState) -> AbstractContextManager[MetricsLog | None]:
    if not trainee.world.is_main:
        return nullcontext()
    return closing(MetricsLog(trainee.run, trainee.progress.step, tensorboard=trainee.config.train.tensorboard))


def _open_folder(run: Path, config: Config, shards: Shards, baselines: dict[str, Any] | None) -> None:
    """What stands in the folder from the first step on; a resumed run may have new settings, and no end yet."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "summary.json").unlink(missing_ok=True)
    write_text(run / CONFIG, config.to_toml())
    identity = _identity(config, shards) | {"shards": str(shards.path.resolve())}
    write_text(run / IDENTITY, json.dumps(identity, indent=2) + "\n")
    if baselines:
        write_text(run / "baselines.json", json.dumps(baselines, indent=2) + "\n")


def _identity(config: Config, shards: Shards) -> dict[str, Any]:
    """What a run may not change when it is resumed."""
    return {
        "dataset": shards.fingerprint,
        "tokenizer": shards.tokenizer.fingerprint,
        "model": config.model.model_dump(),
        "seed": config.train.seed,
        "order": [config.data.order, config.data.stride],
        "optimizer": config.train.optimizer,
    }


def _checkpoint_to_resume(run: Path, config: Config, shards: Shards, display: Display) -> Checkpoint | None:
    """The newest valid checkpoint of a run, if it is this run's; None where it was stopped before its first one."""
    path = run / IDENTITY
    saved = json.loads(path.read_text()) if path.exists() else {}
    for what, ours in json.loads(json.dumps(_identity(config, shards))).items():
        if saved.get(what) != ours:
            raise CheckpointError(
                f"{run} cannot be resumed: its {what} was {_brief(saved.get(what))}, now it is {_brief(ours)}. "
                "Resume with what it was started with, or start a new run."
            )
    checkpoint, notices = newest_checkpoint(run / CHECKPOINTS)
    for notice in notices:
        display.notice(notice)
    if checkpoint is None:
        if list_checkpoints(run / CHECKPOINTS):
            raise CheckpointError(f"no checkpoint of {run} is valid. Start a new run.")
        display.notice("no checkpoint was saved before the run stopped; beginning at step 0")
        return None
    if checkpoint.step >= config.train.max_steps:
        raise CheckpointError(
            f"{run} is finished: {checkpoint.step:,} of {config.train.max_steps:,} steps. "
            f"To go on, raise them: --train.max-steps {2 * checkpoint.step}."
        )
    return checkpoint


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _to_beat(run: Path, shards: Shards) -> dict[str, Any] | None:
    """What simpler means reach on the validation text, kept from an earlier sitting if there was one."""
    path = run / "baselines.json"
    if path.exists():
        return json.loads(path.read_text())
    return asdict(baselines(shards.train, shards.val, shards.tokenizer)) if shards.val.n_tokens > 1 else None


def _plan(
    trainee: TrainState, shards: Shards, estimate: Estimate, deadline: float | None, baselines: dict[str, Any] | None
) -> dict[str, Any]:
    config = trainee.config
    return {
        "run": str(trainee.run),
        "data": " ".join(config.data.sources),
        "train_tokens": shards.train.n_tokens,
        "val_tokens": shards.val.n_tokens,
        "windows": estimate.windows,
        "batch_size": config.train.batch_size,
        "validation_windows": estimate.validation_windows,
        "parameters": estimate.parameters,
        "flops_per_token": estimate.flops_per_token,
        "memory_bytes": estimate.memory_bytes,
        "estimated_seconds": estimate_seconds(trainee) if deadline is None else deadline - time.time(),
        "device": str(trainee.runtime.device),
        "precision": trainee.runtime.precision,
        "threads": torch.get_num_threads(),
        "max_steps": config.train.max_steps,
        "tokens_per_step": trainee.tokens_per_step,
        "first_step": trainee.progress.step,
        "budget_seconds": None if deadline is None else deadline - time.time(),
        "baselines": baselines,
    }


def _summary(trainee: TrainState, estimate: Estimate) -> dict[str, Any]:
    """The headline figures; the validation figures are over all of the validation text."""
    progress, records = trainee.progress, read_records(trainee.run / METRICS)
    rates = [record["tokens_per_sec"] for record in records if "tokens_per_sec" in record]
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    measured = evaluate(trainee)
    return {
        "run": str(trainee.run),
        "checkpoint": str(list_checkpoints(trainee.run / CHECKPOINTS)[-1]),
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "train_loss": losses[-1] if losses else None,
        "val_loss": measured.loss if measured else None,
        "val_perplexity": measured.perplexity if measured else None,
        "val_bits_per_byte": measured.bits_per_byte if measured else None,
        "best_step": progress.best_step,
        "best_val_loss": progress.best_val_loss,
        "tokens_per_sec": sorted(rates)[len(rates) // 2] if rates else None,
        "peak_memory_mb": peak_memory_mb(trainee.runtime.device),
        "parameters": estimate.parameters,
        "device": str(trainee.runtime.device),
        "precision": trainee.runtime.precision,
        "command": shlex.join(["tokenloom", *sys.argv[1:]]),
    }
