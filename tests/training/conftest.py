"""A tiny model that is about to train."""

import pytest

from tokenloom.compute.parallel import World
from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config
from tokenloom.data.prepare import prepare
from tokenloom.run_folder import RunFolder
from tokenloom.training.preflight import preflight
from tokenloom.training.run import build_state

TINY = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "vocab_size": 257},
    "data": {"tokenizer": "byte"},
    "train": {"batch_size": 4, "warmup_steps": 2, "device": "cpu", "precision": "fp32"},
    "sample": {"max_new_tokens": 0},
}


@pytest.fixture
def state_of(tmp_path):
    """Build such a state, also that of a checkpoint: `state_of(train={"optimizer": "adamw"})`."""
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 400)

    def build(checkpoint=None, **sections):
        config = Config.of(TINY, {"data": {"sources": [str(tmp_path / "text.txt")]}}, sections)
        shards = prepare(config.data, tmp_path / "shards")
        run = RunFolder(tmp_path / "run")
        run.path.mkdir(exist_ok=True)
        runtime, estimate = choose_runtime("cpu", "fp32"), preflight(config, shards)
        return build_state(config, shards, run, runtime, World(), estimate, checkpoint)

    return build


@pytest.fixture
def state(state_of):
    return state_of()
