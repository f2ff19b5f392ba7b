"""The estimated memory of a process is what training allocates at its peak."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tokenloom.compute.hardware import Hardware
from tokenloom.compute.runtime import has_fast_bf16
from tokenloom.config import Config
from tokenloom.model import build
from tokenloom.training.batch_shares import batch_shares
from tokenloom.training.memory import Memory, process_memory
from tokenloom.training.muon import Muon, update_bytes
from tokenloom.training.optimizer import Optimizer
from tokenloom.training.tensors import run_tensors

FP32 = Hardware("cpu", "fp32", fast_bf16=False)
MICRO_BATCH = 4


def config_of(family, **train) -> Config:
    model = {"family": family, "n_layer": 4, "n_head": 2, "n_embd": 64, "block_size": 64, "vocab_size": 300}
    train = {"batch_size": 2 * MICRO_BATCH, "micro_batch_size": MICRO_BATCH, "optimizer": "adamw", **train}
    return Config.of({"model": model, "train": train})


def estimate(config: Config, processes: int = 1) -> Memory:
    """With several processes, of fsdp."""
    return process_memory(config, run_tensors(config), batch_shares(config.train, processes), processes, FP32)


def peak_bytes(run) -> int:
    """The most bytes that are allocated at a time while `run` is called, above those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    allocated = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def train(config: Config) -> None:
    model = build(config.model, torch.Generator().manual_seed(1)).train()
    model.activation_checkpointing = config.train.activation_checkpointing
    optimizer = Optimizer(model, config.train)
    ids = torch.zeros(MICRO_BATCH, config.model.block_size, dtype=torch.long)
    for step in range(2):
        optimizer.zero_grad()
        for _ in range(2):
            model.loss(ids, ids, "sum").backward()
        optimizer.step(step)


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_the_peak_is_that_of_training(family):
    config = config_of(family)
    # Temporary tensors of a few kilobytes are not counted.
    assert estimate(config).total == pytest.approx(peak_bytes(lambda: train(config)), rel=0.05)


def test_the_peak_with_activation_checkpointing_is_that_of_training():
    config = config_of("gpt2", activation_checkpointing=True)
    memory = estimate(config)
    assert memory.total == memory.total_recomputed < estimate(config_of("gpt2")).total
    # The activations of one block are not kept at the same time as what the output head needs.
    assert peak_bytes(lambda: train(config)) < memory.total < 1.3 * peak_bytes(lambda: train(config))


def test_an_update_of_muon_needs_no_more_than_its_estimate():
    weights = [torch.nn.Parameter(torch.ones(96, 64)) for _ in range(6)]
    optimizer = Muon(weights, lr=0.01)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()  # the state is there from now on
    itemsize = 2 if has_fast_bf16(torch.device("cpu")) else 4
    assert peak_bytes(optimizer.step) == pytest.approx(update_bytes(6, 96, 64, itemsize), rel=0.25)


def test_fsdp_divides_what_is_held_and_gathers_what_is_used():
    config = config_of("gpt2", batch_size=4 * MICRO_BATCH)
    whole, part = estimate(config), estimate(config, 2)
    assert part.held == pytest.approx(whole.held / 2, rel=0.01)
    assert 0 == whole.gathered < part.gathered
    assert part.activations == whole.activations
    # The gradients of all blocks are whole until the last micro-batch, if there are several.
    assert estimate(config_of("gpt2"), 2).gathered < part.gathered
