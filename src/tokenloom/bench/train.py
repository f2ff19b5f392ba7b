"""Training steps of GPT-2 124M at batch 2×256: Tokenloom, the book's code, transformers and litgpt.

`chapter`: the chapter's model and optimizer (untied head, dropout 0.1, AdamW). `gpt2`: tied embeddings, no dropout.
"""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.bench.harness import Implementation, Metrics, worker_main
from tokenloom.bench.machine import Machine, Utilization
from tokenloom.config import Config
from tokenloom.data.batches import Batches
from tokenloom.model.flops import forward_flops

BATCH_SIZE, CONTEXT, SEED = 2, 256, 123
VOCAB_SIZE, LAYERS, HEADS, WIDTH = 50257, 12, 12, 768
LEARNING_RATE, WEIGHT_DECAY = 4e-4, 0.1
SHAPES = {
    "chapter": {"tie_embeddings": False, "qkv_bias": False, "dropout": 0.1},
    "gpt2": {"tie_embeddings": True, "qkv_bias": True, "dropout": 0.0},
}
IMPLEMENTATIONS: Mapping[str, tuple[Implementation, ...]] = {
    "chapter": (
        Implementation("book fp32", requires=("llms_from_scratch",)),
        Implementation("tokenloom bf16"),
        Implementation("tokenloom fp32"),
    ),
    "gpt2": (
        Implementation("transformers fp32", requires=("transformers",)),
        Implementation("transformers bf16", requires=("transformers",)),
        Implementation("litgpt bf16", requires=("litgpt",)),
        Implementation("tokenloom bf16"),
        Implementation("tokenloom fp32"),
    ),
}

# Trains on the batch of a step (counted from 0) and returns its loss in nats per token.
TrainStep = Callable[[int], float]


def flops_utilization(name: str, tokens_per_sec: float, machine: Machine, *, shape: str) -> Utilization:
    """Model FLOPs utilization (MFU) relative to the machine's measured matrix products."""
    flops = 3 * forward_flops(_config(shape).model) / CONTEXT * tokens_per_sec
    precision = "bf16" if "bf16" in name else "fp32"
    return Utilization(flops / 1e9 / machine.peak_gflops(precision), f"peak {precision} FLOP/s")


def tokenloom(shape: str, seconds: float, steps: int, precision: str) -> Metrics:
    from tokenloom.compute.parallel import World
    from tokenloom.compute.runtime import choose_runtime, tune_malloc
    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.model import build
    from tokenloom.model.flops import training_flops_per_token
    from tokenloom.run_folder import RunFolder
    from tokenloom.training.optimizer import Optimizer
    from tokenloom.training.step import Counters, TrainState, train_step

    tune_malloc()
    config = _config(shape)
    model = build(config.model, torch.Generator().manual_seed(SEED))
    state = TrainState(
        config=config,
        run=RunFolder(Path("bench")),  # nothing is written to it
        model=model,
        optimizer=Optimizer(model, config.train),
        batches=_batches(),
        validation=None,
        tokenizer=load_tokenizer("gpt2"),
        runtime=choose_runtime("cpu", precision),
        world=World(),
        counters=Counters(),
        peak_flops=1.0,  # MFU is computed by flops_utilization
        flops_per_token=training_flops_per_token(config.model),
    )
    return _measure(lambda step: train_step(state, step).nats / state.tokens_per_step, seconds, steps)


def book(shape: str, seconds: float, steps: int) -> Metrics:
    ch04, ch05 = (import_module(f"llms_from_scratch.{name}") for name in ("ch04", "ch05"))
    sizes = {"vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "emb_dim": WIDTH, "n_heads": HEADS}
    model = ch04.GPTModel({**sizes, "n_layers": LAYERS, "drop_rate": 0.1, "qkv_bias": False}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    device = torch.device("cpu")

    def loss_function(ids: Tensor, targets: Tensor) -> Tensor:
        return ch05.calc_loss_batch(ids, targets, model, device)

    return _measure(_eager_step(loss_function, optimizer), seconds, steps)


def transformers(shape: str, seconds: float, steps: int, precision: str) -> Metrics:
    library = import_module("transformers")
    sizes = {"vocab_size": VOCAB_SIZE, "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    config = library.GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = library.GPT2LMHeadModel(config).train()
    return _measure(_library_step(model, lambda ids: model(ids).logits, precision), seconds, steps)


def litgpt(shape: str, seconds: float, steps: int, precision: str) -> Metrics:
    library = import_module("litgpt")
    sizes = {"padded_vocab_size": VOCAB_SIZE, "block_size": CONTEXT, "n_embd": WIDTH}
    config = library.Config(**sizes, n_layer=LAYERS, n_head=HEADS, rotary_percentage=1.0)
    model = library.GPT(config).train()
    return _measure(_library_step(model, model, precision), seconds, steps)


def _config(shape: str) -> Config:
    model = {"family": "gpt2", "vocab_size": VOCAB_SIZE, "block_size": CONTEXT, **SHAPES[shape]}
    model |= {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH}
    train = {"optimizer": "adamw", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "beta1": 0.9}
    train |= {"beta2": 0.999, "schedule": "constant", "warmup_steps": 0, "grad_clip": None, "batch_size": BATCH_SIZE}
    return Config.of({"model": model, "train": train})


def _library_step(model: nn.Module, logits: Callable[[Tensor], Tensor], precision: str) -> TrainStep:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def loss_function(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            return F.cross_entropy(logits(ids).flatten(0, 1).float(), targets.flatten())

    return _eager_step(loss_function, optimizer)


def _eager_step(loss_function: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer) -> TrainStep:
    batches = _batches()

    def train_step(step: int) -> float:
        ids, targets = batches.batch(step)
        optimizer.zero_grad()
        loss = loss_function(ids, targets)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return train_step


def _measure(train_step: TrainStep, seconds: float, steps: int) -> Metrics:
    """Median rate over `seconds` of steps after two warm-up steps, and the loss after at least `steps` in total."""
    torch.manual_seed(SEED)
    losses = [train_step(0), train_step(1)]
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        started = time.perf_counter()
        losses.append(train_step(len(losses)))
        times.append(time.perf_counter() - started)
    while len(losses) < steps:
        losses.append(train_step(len(losses)))
    last = losses[-10:] if steps else losses[-1:]
    return {
        "tokens_per_sec": BATCH_SIZE * CONTEXT / statistics.median(times),
        "best_step_seconds": min(times),
        "steps": len(losses),
        "loss": sum(last) / len(last),
    }


def _batches() -> Batches:
    """The same batches for every implementation: Python's docstrings with the GPT-2 tokenizer."""
    from tokenloom.data.corpora import python_docs
    from tokenloom.data.tokenizers import load_tokenizer

    ids = load_tokenizer("gpt2").encode_array("\n\n".join(python_docs()[:300]))
    return Batches(_ArrayReader(ids), block_size=CONTEXT, batch_size=BATCH_SIZE, seed=SEED)


@dataclass(frozen=True)
class _ArrayReader:
    """Tokens in memory, read like those of token shards."""

    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> np.ndarray:
        return self.ids[start : start + count]


TASKS = {
    "book fp32": book,
    "transformers fp32": partial(transformers, precision="fp32"),
    "transformers bf16": partial(transformers, precision="bf16"),
    "litgpt bf16": partial(litgpt, precision="bf16"),
    "tokenloom bf16": partial(tokenloom, precision="bf16"),
    "tokenloom fp32": partial(tokenloom, precision="fp32"),
}

if __name__ == "__main__":
    worker_main(TASKS)
