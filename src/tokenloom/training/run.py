"""A whole training run: from configuration and token shards to the files of its run folder."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

import torch

from tokenloom.compute.environment import Environment
from tokenloom.compute.hardware import hardware_of
from tokenloom.compute.parallel import World, destroy_process_group, join_processes
from tokenloom.compute.runtime import Runtime, peak_flops, peak_memory_mb, tune_malloc
from tokenloom.compute.strategies import parallelize
from tokenloom.config import Config
from tokenloom.data.batches import Batches
from tokenloom.data.shards import Shards
from tokenloom.errors import ConfigError, Interrupted, TrainingError
from tokenloom.evaluation.baselines import baselines
from tokenloom.evaluation.measurement import Measurement
from tokenloom.reporting.formatting import byte_count
from tokenloom.reporting.messages import resume_command
from tokenloom.reporting.report import write_report
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import Baselines, RunPlan, RunSummary
from tokenloom.training.budget import Limit, estimate_seconds, few_steps_notice, plan_steps
from tokenloom.training.claim import claimed_run
from tokenloom.training.compiling import compile_if_configured, pays_to_compile
from tokenloom.training.display import Display, QuietDisplay
from tokenloom.training.evaluation import evaluate
from tokenloom.training.interrupt import StopRequest
from tokenloom.training.loop import train_loop
from tokenloom.training.metrics_log import MetricsLog
from tokenloom.training.optimizer import Optimizer
from tokenloom.training.preflight import Estimate, preflight
from tokenloom.training.restarting import record_launch, summary_before_restart
from tokenloom.training.resuming import checkpoint_to_resume, counters_of, identity_of
from tokenloom.training.step import Counters, TrainState
from tokenloom.training.strategy import memory_of_process, starting_model, starting_optimizer_state, with_strategy
from tokenloom.weights.checkpoint import Checkpoint, list_checkpoints, open_checkpoint

ANNOUNCED_BYTES = 4_000_000  # of training text; compressing more takes seconds


def train_run(
    config: Config,
    shards: Shards,
    run: Callable[[], RunFolder],
    *,
    resume: bool = False,
    limit: Limit | None = None,
    display: Display | None = None,
) -> RunSummary | None:
    """Train, and write configuration, metrics, samples, checkpoints, plots and report to the folder that `run` returns.

    `run` creates the folder of a new run, or returns the one to resume; it is called on rank 0 only.

    With `resume`, training continues from the run's newest valid checkpoint with the same results, bit for bit, as
    without the interruption. A run that was finished before torchrun restarted its processes is not changed.
    A time `limit` determines `max_steps`, also of a run that is resumed. Under torchrun every process calls this, and
    only rank 0 returns the summary. Raises `TrainingError`, `CheckpointError` and `UsageError`, and `DistributedError`
    if another process has ended.
    """
    world, runtime = join_processes(config.train.device, config.train.precision)
    tune_malloc()
    display = display if display is not None and world.is_main else QuietDisplay()
    try:
        if resume and (finished := summary_before_restart(run, world)):
            display.notice(f"{finished.run} was finished before its processes were restarted; nothing is left to do")
            return finished if world.is_main else None
        config = _with_vocab_size(config, shards)
        config = with_strategy(config, shards, runtime, world)
        estimate = preflight(config, shards, world.world_size, hardware_of(runtime))
        _refuse_if_too_large(estimate, runtime)
        with claimed_run(run, world, is_new=not resume) as folder:
            checkpoint = None
            if resume:
                most_steps = config.train.max_steps if limit is None else limit.most_steps
                checkpoint = _checkpoint_to_resume(config, shards, folder, runtime, world, display, most_steps)
            summary = _train(config, shards, folder, runtime, world, estimate, checkpoint, limit, display)
        return summary if world.is_main else None
    except Exception as error:
        world.leave(error)
        raise
    finally:
        destroy_process_group()


def _checkpoint_to_resume(
    config: Config,
    shards: Shards,
    run: RunFolder,
    runtime: Runtime,
    world: World,
    display: Display,
    most_steps: int | None,
) -> Checkpoint | None:
    """The checkpoint that rank 0 chooses; each of the others verifies it, unless rank 0 reads it for them."""
    environment = Environment.of(runtime, world)
    checkpoint = world.on_main(lambda: checkpoint_to_resume(run, config, shards, environment, display, most_steps))
    if checkpoint is None or world.is_main or config.train.strategy == "fsdp":
        return checkpoint
    return open_checkpoint(checkpoint.path)


def _train(
    config: Config,
    shards: Shards,
    run: RunFolder,
    runtime: Runtime,
    world: World,
    estimate: Estimate,
    checkpoint: Checkpoint | None,
    limit: Limit | None,
    display: Display,
) -> RunSummary:
    """Train, evaluate on the whole validation text, and write the report."""
    run_baselines = world.on_main(lambda: _baselines(run, shards, display))
    budget, compiled_block = None, None
    with StopRequest() as stop:
        if limit is not None:
            if config.train.compile is None:
                pays = world.broadcast(pays_to_compile(runtime, limit.deadline - time.time()))
                config = config.with_values(train={"compile": pays})
            state = build_state(config, shards, run, runtime, world, estimate, checkpoint, display.notice)
            max_steps, budget = plan_steps(state, limit)
            if checkpoint is not None and max_steps != config.train.max_steps:
                display.notice(
                    f"the time allows {max_steps:,} steps instead of {config.train.max_steps:,}, of which "
                    f"{checkpoint.step:,} are done: the learning rate schedule ends there"
                )
            if checkpoint is None or max_steps != config.train.max_steps:
                config = config.with_values(train={"max_steps": max_steps, "earlier_max_steps": ()})
            compiled_block = state.model.training_block
            if notice := few_steps_notice(max_steps, budget):
                display.notice(notice)
            del state  # it was trained on the batches that were timed
        world.on_main(lambda: _write_run_files(run, config, shards, run_baselines))
        state = build_state(config, shards, run, runtime, world, estimate, checkpoint, display.notice)
        if config.train.compile is None:
            state.change_settings(compile=world.broadcast(pays_to_compile(runtime, estimate_seconds(state))))
            compile_if_configured(state, display.notice)
        if compiled_block is not None:
            state.model.training_block = compiled_block  # it would take seconds to load it again
        plan = _plan(state, shards, estimate, limit, run_baselines)
        world.on_main(lambda: run.write_plan(plan))
        display.started(plan)
        with _open_log(state) as log:
            train_loop(state, log, display, stop, budget)
        summary = world.on_main(partial(_summary, state, estimate, _final_evaluation(state, stop, display)))
        world.on_main(lambda: _write_results(run, summary))
    display.finished(summary)
    return summary


def build_state(
    config: Config,
    shards: Shards,
    run: RunFolder,
    runtime: Runtime,
    world: World,
    estimate: Estimate,
    checkpoint: Checkpoint | None = None,
    notify: Callable[[str], None] = warnings.warn,
) -> TrainState:
    """Model, optimizer and batches of a new run, or of a checkpoint; `notify` is called if compiling fails."""
    model = starting_model(config, checkpoint, world)
    model.activation_checkpointing = config.train.activation_checkpointing
    parallelism = parallelize(model, world, config.train.strategy, runtime.device, config.train.replicas)
    optimizer = Optimizer(model, config.train)
    optimizer.load_state_tensors(starting_optimizer_state(config, checkpoint, world))
    counters = counters_of(checkpoint) if checkpoint else Counters()
    state = TrainState(
        config=config,
        run=run,
        model=model,
        optimizer=optimizer,
        batches=Batches(
            shards.train,
            block_size=config.model.block_size,
            batch_size=config.train.batch_size,
            seed=config.train.seed,
            order=config.data.order,
            stride=config.data.stride,
            first_step=counters.step,
            # Not the step times the batch size, because earlier steps may have had another batch size.
            first_window=counters.tokens // config.model.block_size,
        ),
        validation=shards.val if shards.val.n_tokens > 1 else None,
        tokenizer=shards.tokenizer,
        runtime=runtime,
        world=world,
        counters=counters,
        peak_flops=peak_flops(runtime),
        flops_per_token=estimate.flops_per_token,
        parallelism=parallelism,
    )
    compile_if_configured(state, notify)
    return state


def _with_vocab_size(config: Config, shards: Shards) -> Config:
    """Set model.vocab_size to the tokenizer's, or check that the configured one is large enough."""
    tokens, configured = shards.tokenizer.vocab_size, config.model.vocab_size
    if configured is not None and configured < tokens:
        raise ConfigError(
            f"model.vocab_size {configured:,} is smaller than the tokenizer's {tokens:,} tokens. Remove it or raise it."
        )
    return config.with_values(model={"vocab_size": configured or tokens})


def _refuse_if_too_large(estimate: Estimate, runtime: Runtime) -> None:
    available = memory_of_process(runtime)
    if estimate.memory_bytes > available:
        raise TrainingError(
            f"training needs about {byte_count(estimate.memory_bytes)} of memory, but only {byte_count(available)} "
            "are free. Use a smaller --preset, --train.micro-batch-size 1, or --train.activation-checkpointing.",
            topic="memory",
        )


def _baselines(run: RunFolder, shards: Shards, display: Display) -> Baselines | None:
    """Baselines on the validation text; a resumed run has saved them, unless version 0.1.0 divided by other bytes."""
    saved = run.baselines()
    if shards.val.n_tokens <= 1 or (saved is not None and not saved.separators_counted):
        return saved
    if shards.train.n_bytes > ANNOUNCED_BYTES:
        display.notice("compressing text with xz and zstd, to compare the model with them")
    return baselines(shards.train, shards.val, shards.tokenizer)


def _write_run_files(run: RunFolder, config: Config, shards: Shards, run_baselines: Baselines | None) -> None:
    """Write the files that a run has from its first step on; a resumed run may have new settings."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.remove_results()
    run.write_config(config)
    run.write_identity(identity_of(config, shards))
    record_launch(run)
    if run_baselines is not None:
        run.write_baselines(run_baselines)


def _open_log(state: TrainState) -> AbstractContextManager[MetricsLog | None]:
    if not state.world.is_main:
        return nullcontext()
    return closing(MetricsLog(state.run, state.counters.step, tensorboard=state.config.train.tensorboard))


def _plan(
    state: TrainState, shards: Shards, estimate: Estimate, limit: Limit | None, run_baselines: Baselines | None
) -> RunPlan:
    config = state.config
    budget_seconds = None if limit is None else max(0.0, limit.deadline - time.time())
    return RunPlan(
        run=str(state.run.path),
        data=" ".join(config.data.sources),
        train_tokens=shards.train.n_tokens,
        val_tokens=shards.val.n_tokens,
        windows=estimate.windows,
        validation_windows=estimate.validation_windows,
        batch_size=config.train.batch_size,
        tokens_per_step=state.tokens_per_step,
        max_steps=config.train.max_steps,
        first_step=state.counters.step,
        parameters=estimate.parameters,
        flops_per_token=estimate.flops_per_token,
        memory_bytes=estimate.memory_bytes,
        estimated_seconds=estimate_seconds(state) if budget_seconds is None else budget_seconds,
        budget_seconds=budget_seconds,
        device=str(state.runtime.device),
        precision=state.runtime.precision,
        threads=torch.get_num_threads(),
        baselines=run_baselines,
    )


def _final_evaluation(state: TrainState, stop: StopRequest, display: Display) -> Measurement | None:
    """The measurement on the whole validation text; raises `Interrupted` if a stop is requested meanwhile."""

    def progress(done: int, total: int) -> None:
        display.evaluated(done, total)
        if received := stop.agreed(state.world):
            raise Interrupted(
                f"stopped during the final evaluation, after saving a checkpoint at step {state.counters.step:,}. "
                f"Complete the run with: {resume_command(state.run.path)}",
                received,
            )

    return evaluate(state, progress=progress)


def _write_results(run: RunFolder, summary: RunSummary) -> None:
    run.write_summary(summary)
    write_report(run.path)


def _summary(state: TrainState, estimate: Estimate, measurement: Measurement | None) -> RunSummary:
    """The headline figures; validation figures are those of the final evaluation."""
    counters, records = state.counters, state.run.metrics()
    rates = [record.tokens_per_sec for record in records if record.tokens_per_sec is not None]
    losses = [record.train_loss for record in records if record.train_loss is not None]
    evaluations = [record for record in records if record.val_loss is not None]
    return RunSummary(
        run=str(state.run.path),
        checkpoint=str(list_checkpoints(state.run.checkpoints)[-1]),
        steps=counters.step,
        tokens=counters.tokens,
        epoch=state.batches.epoch(counters.step),
        seconds=counters.seconds,
        train_loss=losses[-1] if losses else None,
        val_loss=measurement.loss if measurement else None,
        val_perplexity=measurement.perplexity if measurement else None,
        val_bits_per_byte=measurement.bits_per_byte if measurement else None,
        best_step=counters.best_step,
        best_val_loss=counters.best_val_loss,
        last_val_loss=evaluations[-1].val_loss if evaluations else None,
        val_share=evaluations[-1].val_share if evaluations else None,
        tokens_per_sec=statistics.median_high(rates) if rates else None,
        peak_memory_mb=peak_memory_mb(state.runtime.device),
        parameters=estimate.parameters,
        device=str(state.runtime.device),
        precision=state.runtime.precision,
        command=shlex.join(["tokenloom", *sys.argv[1:]]),
    )
