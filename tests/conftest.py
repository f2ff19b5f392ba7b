"""Small models with random weights, far enough from their initial state that every part of them has a say."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.model.gpt2 import GPT2
from tokenloom.model.modern import Modern

# How long an example takes on a busy machine says nothing about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# An untied head: a tied one likes to repeat the last token, and greedy texts would all look alike.
SHAPE = {"vocab_size": 60, "block_size": 16, "n_layer": 2, "n_embd": 16, "tie_embeddings": False}
MODELS = {
    "gpt2": (GPT2, ModelConfig(family="gpt2", n_head=2, **SHAPE)),
    "modern": (Modern, ModelConfig(n_head=4, n_kv_head=2, bigram_buckets=97, value_embeddings=True, **SHAPE)),
}


@pytest.fixture(params=MODELS)
def model(request):
    return make_model(request.param)


@pytest.fixture
def model_of():
    """Build such a model: `model_of("gpt2", dropout=0.1)`."""
    return make_model


@pytest.fixture(scope="session")
def texts_folder() -> Path:
    folder = os.environ.get("TOKENLOOM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TOKENLOOM_DATA names no folder with the-verdict.txt and tinyshakespeare.txt")
    return Path(folder)


@pytest.fixture(scope="session")
def verdict(texts_folder: Path) -> str:
    return (texts_folder / "the-verdict.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def verdict_tokens(verdict: str) -> dict[str, "Tokens"]:
    """The story as the book splits it: its first nine tenths, in characters, to train, the rest to validate."""
    tokenizer, boundary = load_tokenizer("gpt2"), int(0.9 * len(verdict))
    parts = {"train": verdict[:boundary], "val": verdict[boundary:]}
    return {name: Tokens(tokenizer.encode_array(part)) for name, part in parts.items()}


class Tokens:
    """An array that is read like the tokens of a shard."""

    def __init__(self, ids) -> None:
        self.ids = np.asarray(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, count: int) -> np.ndarray:
        assert 0 <= start <= start + count <= len(self), "nothing beyond the text is asked for"
        return self.ids[start : start + count]


def make_model(name, **changes):
    family, config = MODELS[name]
    random = torch.Generator().manual_seed(7)
    built = family(config.model_copy(update=changes), random)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return built.eval()
