"""The estimated size of a run; its errors are tested on whole runs in test_run.py."""

import pytest

from tokenloom.config import Config
from tokenloom.data.batches import count_windows
from tokenloom.data.prepare import prepare
from tokenloom.errors import TrainingError
from tokenloom.model import build
from tokenloom.model.flops import count_parameters
from tokenloom.training.memory import state_bytes
from tokenloom.training.preflight import preflight
from tokenloom.training.tensors import run_tensors

MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 257}


def estimate(tmp_path, **train):
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 400)
    data = {"tokenizer": "byte", "sources": [str(tmp_path / "text.txt")]}
    config = Config.of({"model": MODEL, "data": data, "train": {"batch_size": 8, **train}})
    shards = prepare(config.data, tmp_path / "shards")
    return config, shards, preflight(config, shards)


def test_parameters_and_windows_are_exact(tmp_path):
    config, shards, size = estimate(tmp_path)
    assert size.parameters == sum(parameter.numel() for parameter in build(config.model).parameters())
    assert size.windows == count_windows(shards.train.n_tokens, 16, 16)
    assert size.validation_windows == count_windows(shards.val.n_tokens, 16, 16)


def test_smaller_micro_batches_and_activation_checkpointing_need_less_memory(tmp_path):
    sizes = [
        estimate(tmp_path, **train)[2].memory_bytes
        for train in ({}, {"micro_batch_size": 2}, {"micro_batch_size": 2, "activation_checkpointing": True})
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


@pytest.mark.parametrize(
    ("processes", "train", "advice"),
    [
        (3, {"batch_size": 8}, "--train.batch-size 6 or 9, or 1 or 2 processes"),
        (7, {"batch_size": 8}, "--train.batch-size 7 or 14, or 2 or 4 processes"),
        (9, {"batch_size": 8}, "--train.batch-size 9, or 4 or 8 processes"),
        # Micro-batches divide the batch as well.
        (3, {"batch_size": 16, "micro_batch_size": 4}, "--train.batch-size 12 or 24, or 1 or 2 processes"),
        (2, {"batch_size": 9}, "--train.batch-size 8 or 10, or 1 process"),
        # A batch of 1,200 is larger than the text.
        (600, {"batch_size": 800}, "--train.batch-size 600, or 200 or 400 processes"),
    ],
)
def test_a_batch_that_processes_cannot_share_is_refused_with_sizes_that_they_can(tmp_path, processes, train, advice):
    config, shards, _ = estimate(tmp_path, **train)
    with pytest.raises(TrainingError) as error:
        preflight(config, shards, processes)
    batch = train["batch_size"]
    assert str(error.value) == f"train.batch_size {batch} is not a multiple of the {processes} processes. Use {advice}."


def test_with_more_replicas_each_process_holds_a_larger_part(tmp_path):
    config, shards, _ = estimate(tmp_path, strategy="fsdp")
    two = config.with_values(train={"replicas": 2})
    one_replica, two_replicas = (preflight(each, shards, 4).memory_bytes for each in (config, two))
    # Weights, gradients and optimizer state: a half instead of a quarter of them. What is gathered has other padding.
    held = 8 * count_parameters(config.model) + state_bytes(run_tensors(config))
    assert two_replicas - one_replica == pytest.approx(held / 4, rel=0.1)
