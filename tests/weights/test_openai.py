"""OpenAI's folders: small checkpoints that TensorFlow wrote (openai-checkpoints/write_checkpoint.py)."""

import shutil
from pathlib import Path

import pytest
import torch

from tokenloom.book import GPTModel, load_weights_into_gpt
from tokenloom.errors import CheckpointError, TokenloomError, WeightsError
from tokenloom.weights.load import load
from tokenloom.weights.openai import openai_tokenizer, parameters_as_book, read_openai

WRITTEN = Path(__file__).parent / "openai-checkpoints"
SETTINGS = {"vocab_size": 300, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "drop_rate": 0.0}
IDS = torch.arange(16)[None]


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(WRITTEN / "gpt2", tmp_path / "gpt2"))


@pytest.mark.parametrize("name", ["gpt2", "several-files"])
def test_the_model_equals_the_one_that_the_book_builds(name):
    """The book assigns nested NumPy arrays to its own model."""
    ours = read_openai(WRITTEN / name).read()
    settings, params = parameters_as_book(WRITTEN / name)
    assert settings == {"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
    theirs = GPTModel({**SETTINGS, "qkv_bias": True})
    load_weights_into_gpt(theirs, params)
    assert torch.equal(ours(IDS), theirs.eval()(IDS))
    assert ours.lm_head.weight is ours.wte.weight


def test_another_merge_list_is_refused(folder):
    assert openai_tokenizer(folder).vocab_size == 50257
    (folder / "vocab.bpe").write_text("#version: 0.2\na b\n")
    with pytest.raises(WeightsError, match=r"vocab.bpe"):
        openai_tokenizer(folder)


def test_missing_files_are_named(folder):
    for name in ("model.ckpt.data-00000-of-00001", "model.ckpt.index"):
        (folder / name).unlink()
        with pytest.raises(WeightsError, match=name):
            read_openai(folder)
    (folder / "hparams.json").unlink()
    with pytest.raises(CheckpointError, match="config.json"):
        load(folder)


def test_settings_that_do_not_match_the_weights_are_refused(folder):
    (folder / "hparams.json").write_text('{"n_vocab": 301, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}')
    with pytest.raises(TokenloomError, match=r"wte.weight"):
        read_openai(folder).read()
    (folder / "hparams.json").write_text('{"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 3}')
    with pytest.raises(TokenloomError, match=r"lacks tensor h.2"):
        read_openai(folder).read()
