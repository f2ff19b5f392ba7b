"""What each process of the tests of sharded training runs: small models under FSDP2, trained, saved and loaded."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.multiprocessing as mp

from tokenloom.compute.parallel import World, destroy_process_group, init_process_group
from tokenloom.compute.runtime import has_fast_bf16
from tokenloom.compute.sharded_tensors import whole
from tokenloom.compute.shards import Shards
from tokenloom.config import ModelConfig, TrainConfig
from tokenloom.data.batches import Batches
from tokenloom.data.token_reader import TokenArray
from tokenloom.model import GPT, build
from tokenloom.training.optimizer import Optimizer
from tokenloom.weights.lazy_tensors import uninitialized

BATCH, MICRO_BATCH, CONTEXT, VOCABULARY = 8, 2, 16, 257
# A sequence that is learned in a few steps, so that losses differ.
TOKENS = TokenArray((torch.arange(900) * 7 % 29).numpy())
SHAPE = {"vocab_size": VOCABULARY, "block_size": CONTEXT, "n_layer": 2, "n_embd": 16, "n_head": 4}
MODELS = {
    # Embedding and head are one parameter; Hugging Face's format has biases that the model does not have.
    "gpt2": ModelConfig(family="gpt2", tie_embeddings=True, qkv_bias=False, **SHAPE),
    # With heads of size 6, four processes have 2, 2, 2 and 0 of the gains of a norm.
    "modern": ModelConfig(family="modern", tie_embeddings=False, n_kv_head=2, head_dim=6, n_inner=24, **SHAPE),
}
# Losses of the same steps with sums in another order differ by rounding, in 50 steps by 1e-6. Muon computes in bf16
# where that is fast: then they differ by 1e-3.
ROUNDING = {"adamw": 1e-5, "muon": 5e-3 if has_fast_bf16(torch.device("cpu")) else 1e-5}


def new_model(family: str) -> GPT:
    """A small model in which every weight affects the loss, unlike in a new one."""
    random = torch.Generator().manual_seed(7)
    model = build(MODELS[family], random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return model


Program = Callable[[World, Path], None]


def run_processes(count: int, folder: Path, *programs: Program) -> None:
    """Run `programs`, one after another, in `count` processes; each has a new group, as torchrun sets it up."""
    mp.spawn(_process, (count, folder, programs, [free_port() for _ in programs]), nprocs=count)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _process(rank: int, count: int, folder: Path, programs: Sequence[Program], ports: Sequence[int]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    for program, port in zip(programs, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        try:
            program(init_process_group(), folder)
        finally:
            destroy_process_group()
    os._exit(0)  # see has_joined


class Training:
    """A few training steps, on one process with the whole batch or on several with their shares of it."""

    def __init__(self, model: GPT, world: World, replicas: int = 1, **settings: object) -> None:
        self.shards = None
        if world.world_size > 1:
            model = model if world.is_main else uninitialized(model.config)
            self.shards = Shards(model, world, torch.device("cpu"), replicas)
        self.model, self.world = model.train(), world
        defaults = {"warmup_steps": 5, "max_steps": 50, "learning_rate": 1e-2, "grad_clip": 0.5}
        self.config = TrainConfig.model_validate({**defaults, **settings})
        self.optimizer = Optimizer(model, self.config)
        self.batches = Batches(TOKENS, block_size=CONTEXT, batch_size=BATCH, seed=1)

    def gradient(self, step: int) -> tuple[float, float]:
        """Set the gradients, clipped; the loss, and the norm before clipping."""
        self.optimizer.zero_grad()
        shares = self.batches.batch(step, self.world.rank, self.world.world_size)
        micro_batches = list(zip(*(share.split(MICRO_BATCH) for share in shares), strict=True))
        nats = torch.zeros(())
        for number, (ids, targets) in enumerate(micro_batches, start=1):
            is_last = number == len(micro_batches)
            with self.shards.micro_batch(is_last=is_last) if self.shards else nullcontext():
                loss = self.model.loss(ids, targets, "sum")
                (loss / (BATCH * CONTEXT)).backward()
            nats += loss.detach()
        norm = whole(torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters()]))
        torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.grad_clip, norm)
        return self.world.all_reduce(nats).item() / (BATCH * CONTEXT), norm.item()

    def steps(self, first: int, last: int) -> list[float]:
        """Losses of training steps."""
        losses = []
        for step in range(first, last):
            losses.append(self.gradient(step)[0])
            self.optimizer.step(step)
        return losses
