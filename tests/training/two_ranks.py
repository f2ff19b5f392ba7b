"""A tiny model that one or several processes train, and the program of each of two processes.

Starting a process takes seconds, so the program makes all measurements that need a pair of them, and writes them to
`FOLDER/RANK.json` and `FOLDER/RANK.safetensors`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from tokenloom.compute.parallel import World, destroy_process_group, join_processes
from tokenloom.compute.runtime import Runtime, choose_runtime
from tokenloom.config import Config
from tokenloom.data.prepare import prepare
from tokenloom.errors import CheckpointError, DivergedError, Interrupted
from tokenloom.run_folder import RunFolder
from tokenloom.training import run
from tokenloom.training.budget import Limit, TimeBudget, replan
from tokenloom.training.display import QuietDisplay
from tokenloom.training.evaluation import evaluate
from tokenloom.training.interrupt import StopRequest
from tokenloom.training.loop import train_loop
from tokenloom.training.preflight import preflight
from tokenloom.training.saving import save
from tokenloom.training.step import train_step
from tokenloom.weights.checkpoint import list_checkpoints

FAMILIES = {"gpt2": {"family": "gpt2"}, "modern": {"family": "modern", "n_kv_head": 1, "tie_embeddings": False}}
STEPS = 50
SETTINGS = {
    "model": {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 257},
    "data": {"tokenizer": "byte"},
    # Two micro-batches in each of two processes, and a gradient that is clipped.
    "train": {
        "batch_size": 8,
        "micro_batch_size": 2,
        "grad_clip": 0.1,
        "optimizer": "adamw",
        "max_steps": STEPS,
        "eval_batches": 1,
        "eval_interval": 20,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "device": "cpu",
        "precision": "fp32",
    },
    "sample": {"max_new_tokens": 2},
}


def make_state(folder: Path, world: World, family: str, **train):
    """A model of a family that is about to train on `folder/text.txt`; its run is in `folder/family`."""
    run.peak_flops = lambda _: 1e9  # measuring takes longer than training
    sources = {"data": {"sources": [str(folder / "text.txt")]}}
    config = Config.of(SETTINGS, sources, {"model": FAMILIES[family], "train": train})
    shards = prepare(config.data, folder / "shards")
    state = run.build_state(
        config,
        shards,
        RunFolder(folder / family),
        choose_runtime("cpu", "fp32"),
        world,
        preflight(config, shards, world.world_size),
    )
    state.run.path.mkdir(exist_ok=True)
    return state


def measure(folder: Path, world: World, family: str) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """Losses of `STEPS` steps and of two evaluations; the clipped gradient of the first step and its norm."""
    state = make_state(folder, world, family)
    first = train_step(state, 0)
    gradients = {f"{family}/{name}": p.grad.clone() for name, p in state.model.named_parameters()}
    losses = [first.nats, *(train_step(state, step).nats for step in range(1, STEPS))]
    whole, part = evaluate(state), evaluate(state, 1)
    results = {
        "losses": [nats / state.tokens_per_step for nats in losses],
        "grad_norm": first.grad_norm,
        "val_loss": whole.loss,
        "val_tokens": whole.tokens,
        "val_bytes": whole.bytes,
        "val_loss_of_part": part.loss,
    }
    return results, gradients


class SignalAtStep(QuietDisplay):
    """Sends a signal to its own process after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, step: int, loss: float, tokens_per_sec: float) -> None:
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)


def stopped_by_a_signal_to_rank_1(folder: Path, world: World) -> dict[str, object]:
    state = make_state(folder, world, "gpt2")
    try:
        with StopRequest() as stop:
            train_loop(state, None, SignalAtStep(3 if world.rank == 1 else 0), stop)
    except Interrupted as error:
        saved = [path.name for path in list_checkpoints(state.run.checkpoints)]
        return {"step": state.counters.step, "exit_code": error.exit_code, "checkpoints": saved}
    return {}


def diverged_on_rank_1(folder: Path, world: World) -> dict[str, object]:
    state = make_state(folder, world, "gpt2")
    if world.rank == 1:
        with torch.no_grad():
            state.model.wpe.weight.fill_(float("nan"))
    try:
        train_step(state, 0)
    except DivergedError as error:
        return {"message": str(error)}
    return {}


def overflow_in_fp16_on_rank_1(folder: Path, world: World) -> dict[str, object]:
    """Two steps in fp16, in the first of which a gradient of one process is too large at the initial loss scale."""
    state = replace(make_state(folder, world, "gpt2"), runtime=Runtime(torch.device("cpu"), "fp16"))
    initial_scale = state.scaler.get_scale()
    if world.rank == 1:
        state.model.wpe.weight.register_hook(
            lambda gradient: gradient * float("inf") if state.scaler.get_scale() == initial_scale else gradient
        )
    steps = [train_step(state, step) for step in range(2)]
    return {
        "scale": state.scaler.get_scale() / initial_scale,
        "losses": [step.nats for step in steps],
        "norms": [step.grad_norm for step in steps],
        "weights": sum(parameter.double().sum().item() for parameter in state.model.parameters()),
    }


def failing_save(folder: Path, world: World) -> dict[str, object]:
    """A checkpoint that cannot be written, because a file has the name of its folder."""
    state = make_state(folder, world, "modern")
    if world.is_main:
        state.run.checkpoints.touch()
    try:
        save(state, QuietDisplay())
    except CheckpointError as error:
        return {"message": str(error), "is_reported": error.is_reported}
    return {}


def changed_number_of_steps(folder: Path, world: World) -> list[list[int]]:
    """What a review decides: rank 0 has 100 s for steps of 1 s, rank 1 measures other times."""
    state = make_state(folder, world, "gpt2")
    state.counters.step = 20
    left, step_seconds = ((100.0, 1.0), (9.0, 30.0))[world.rank]
    budget = TimeBudget(
        Limit(left, left), left, step_seconds=1.0, evaluation_seconds=0.0, final_seconds=0.0, clock=lambda: 0.0
    )
    replan(state, budget, step_seconds, QuietDisplay())
    train = state.config.train
    return [[train.max_steps], *map(list, train.earlier_max_steps)]


def start(folder: Path, command: list[str], size: int = 2) -> list[subprocess.Popen]:
    """Start processes as torchrun does, on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, **rendezvous, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def main(folder: Path) -> None:
    world, _ = join_processes("cpu", "fp32")
    results: dict[str, object] = {}
    tensors: dict[str, torch.Tensor] = {}
    for family in FAMILIES:
        results[family], gradients = measure(folder, world, family)
        tensors |= gradients
    results["stopped"] = stopped_by_a_signal_to_rank_1(folder, world)
    results["diverged"] = diverged_on_rank_1(folder, world)
    results["overflow"] = overflow_in_fp16_on_rank_1(folder, world)
    results["failing save"] = failing_save(folder, world)
    results["changed number of steps"] = changed_number_of_steps(folder, world)
    destroy_process_group()
    save_file(tensors, folder / f"{world.rank}.safetensors")
    (folder / f"{world.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # see has_joined
