"""A small model of the book and its data."""

import pytest
import torch

from tokenloom.book import GPTModel, create_dataloader_v1

CONFIG = {
    "vocab_size": 50257,
    "context_length": 32,
    "emb_dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
TEXT = "".join(f"It was night {n}, and {n * n} stars were out.\n" for n in range(120))


@pytest.fixture
def config() -> dict:
    return dict(CONFIG)


@pytest.fixture
def text() -> str:
    return TEXT


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(123)
    return GPTModel(CONFIG).eval()


@pytest.fixture
def loaders():
    """Training and validation batches."""
    torch.manual_seed(123)
    sizes = {"batch_size": 2, "max_length": 32, "stride": 32, "num_workers": 0}
    boundary = int(0.9 * len(TEXT))
    return (
        create_dataloader_v1(TEXT[:boundary], **sizes, drop_last=True, shuffle=True),
        create_dataloader_v1(TEXT[boundary:], **sizes, drop_last=False, shuffle=False),
    )
