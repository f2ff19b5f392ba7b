"""The strategy of a run in several processes; what it refuses is one line that names settings that work."""

import pytest
import torch

from tokenloom.compute.parallel import World
from tokenloom.compute.runtime import Runtime
from tokenloom.config import Config
from tokenloom.errors import ConfigError, UsageError
from tokenloom.training.strategy import with_strategy


def strategy_of(processes, precision="fp32", **train):
    """The settings of [train] that processes use; the text is only needed to choose by memory."""
    runtime = Runtime(torch.device("cpu"), precision)
    return with_strategy(Config.of({"train": train}), None, runtime, World(0, processes)).train


def test_replicas_select_fsdp():
    assert strategy_of(4, replicas=2).strategy == "fsdp"
    assert strategy_of(4, strategy="fsdp", replicas=2).replicas == 2


@pytest.mark.parametrize(
    ("processes", "replicas", "advice"),
    [
        (4, 3, "and got 4. Use --train.replicas 1 or 2."),
        (4, 4, "at least 8, and got 4. Use --train.replicas 1 or 2."),
        (32, 5, "and got 32. Use --train.replicas 8 or 16."),
        (1, 2, "at least 4, and got 1. Use --train.replicas 1 --strategy auto."),
    ],
)
def test_replicas_that_processes_cannot_divide_are_refused_with_numbers_that_they_can(processes, replicas, advice):
    with pytest.raises(UsageError) as error:
        strategy_of(processes, replicas=replicas)
    assert str(error.value).startswith(f"--train.replicas {replicas} needs a multiple of {replicas} processes, ")
    assert str(error.value).endswith(advice)


def test_replicas_are_refused_with_ddp():
    with pytest.raises(ConfigError, match=r"replicas 2 is for fsdp: .*Use --train.replicas 1, or --strategy fsdp\."):
        strategy_of(4, strategy="ddp", replicas=2)


def test_fsdp_refuses_fp16():
    with pytest.raises(UsageError, match="--strategy fsdp does not support fp16. Use --train.precision bf16 or fp32."):
        strategy_of(2, strategy="fsdp", precision="fp16")


def test_fsdp_compiles_only_if_that_is_configured():
    assert strategy_of(2, strategy="fsdp").compile is False
    assert strategy_of(2, strategy="fsdp", compile=True).compile is True
