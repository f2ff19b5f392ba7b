"""Small checkpoints to write and compare."""

from pathlib import Path

import torch

from tokenloom.config import ModelConfig
from tokenloom.model.gpt2 import GPT2
from tokenloom.weights.checkpoint import Checkpoint, save_checkpoint

STATE = {"tokens": 640, "best_val_loss": 1 / 3, "seconds": 2.5}


class NamelessTokenizer:
    """The minimum of a tokenizer that a checkpoint needs."""

    eot_id = 0

    def save(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


def save(folder, step=1000, model=None, **options) -> Checkpoint:
    model = model or tiny_gpt2()
    return save_checkpoint(folder, step, model, NamelessTokenizer(), state=STATE, **options)


def tiny_gpt2(seed: int = 0) -> GPT2:
    shape = {"vocab_size": 50, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
    return GPT2(ModelConfig(family="gpt2", **shape), torch.Generator().manual_seed(seed))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
