"""OpenAI's folders, against small checkpoints that TensorFlow wrote (openai-checkpoints/write_checkpoint.py)."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tokenloom.book import GPTModel, load_weights_into_gpt
from tokenloom.errors import CheckpointError, TokenloomError, WeightsError
from tokenloom.weights.crc32c import crc32c, masked
from tokenloom.weights.load import load
from tokenloom.weights.openai import openai_tokenizer, parameters_as_book, read_openai
from tokenloom.weights.tensor_bundle import _block, _handle, open_bundle

WRITTEN = Path(__file__).parent / "openai-checkpoints"
SETTINGS = {"vocab_size": 300, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "drop_rate": 0.0}
IDS = torch.arange(16)[None]


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(WRITTEN / "gpt2", tmp_path / "gpt2"))


@pytest.mark.parametrize("name", ["gpt2", "several-files"])
def test_every_tensor_is_bit_equal(name):
    expected = load_file(WRITTEN / name / "expected.safetensors")
    tensors = open_bundle(WRITTEN / name / "model.ckpt")
    assert tensors.keys() == expected.keys()
    for variable, tensor in tensors.items():
        tensor.check()
        assert np.array_equal(tensor[:].numpy(), expected[variable])
    assert len({tensor.file for tensor in tensors.values()}) == (3 if name == "several-files" else 1)


def test_an_index_of_several_blocks_is_read_whole():
    tensors = open_bundle(WRITTEN / "several-blocks" / "model.ckpt")
    assert len(tensors) == 9000
    for number, (name, tensor) in enumerate(tensors.items()):
        assert name.endswith(f"variable-{number:05d}")
        if number % 50 == 0:
            tensor.check()
            assert tensor[:].tolist() == [number]


def test_rows_are_read_alone():
    tensor = open_bundle(WRITTEN / "gpt2" / "model.ckpt")["model/wte"]
    expected = load_file(WRITTEN / "gpt2" / "expected.safetensors")["model/wte"]
    assert np.array_equal(tensor[7:19].numpy(), expected[7:19])


@pytest.mark.parametrize("name", ["gpt2", "several-files"])
def test_the_model_is_the_one_that_the_book_makes_of_it(name):
    """By another way: nested numpy arrays, put into the book's model."""
    ours = read_openai(WRITTEN / name).read()
    settings, params = parameters_as_book(WRITTEN / name)
    assert settings == {"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
    theirs = GPTModel({**SETTINGS, "qkv_bias": True})
    load_weights_into_gpt(theirs, params)
    assert torch.equal(ours(IDS), theirs.eval()(IDS))
    assert ours.lm_head.weight is ours.wte.weight


def test_the_tokenizer_is_gpt2s_unless_its_merges_are_others(folder):
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


def test_another_shape_is_refused_by_name(folder):
    (folder / "hparams.json").write_text('{"n_vocab": 301, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}')
    with pytest.raises(TokenloomError, match=r"wte.weight"):
        read_openai(folder).read()
    (folder / "hparams.json").write_text('{"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 3}')
    with pytest.raises(TokenloomError, match=r"lacks tensor h.2"):
        read_openai(folder).read()


@pytest.mark.parametrize("name", ["model.ckpt.index", "model.ckpt.data-00000-of-00001"])
def test_ten_thousand_damages_are_seen_or_carry_no_meaning(folder, name):
    """5,000 a file, half of them flipped bits, half cut off."""
    whole = {variable: tensor[:].clone() for variable, tensor in open_bundle(folder / "model.ckpt").items()}
    file, chance = folder / name, random.Random(3)
    good = file.read_bytes()
    unseen = 0
    for _ in range(2500):
        for harm in (_flip, _cut):
            file.write_bytes(harm(good, chance))
            try:
                tensors = open_bundle(folder / "model.ckpt")
                for tensor in tensors.values():
                    tensor.check()
            except TokenloomError:
                pass
            else:
                unseen += 1
                assert tensors.keys() == whole.keys()
                assert all(torch.equal(tensor[:], whole[variable]) for variable, tensor in tensors.items())
    # The handle and the checksum of the table's other index, which nobody needs, and the padding behind them.
    assert unseen < 250


def _flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def test_a_compressed_index_is_refused_by_name(folder):
    """Its first block marked as compressed by Snappy, with the checksum that such a block has."""
    index = folder / "model.ckpt.index"
    data = bytearray(index.read_bytes())
    _, _, at = _handle(bytes(data), len(data) - 48)  # the footer begins with the handle of another table
    start, size, _ = _handle(bytes(data), at)
    (_, first), *_ = _block(bytes(data), start, size)
    offset, length, _ = _handle(first, 0)
    data[offset + length] = 1
    checksum = masked(crc32c(bytes(data[offset : offset + length + 1])))
    data[offset + length + 1 : offset + length + 5] = checksum.to_bytes(4, "little")
    index.write_bytes(data)
    with pytest.raises(WeightsError, match="compressed"):
        open_bundle(folder / "model.ckpt")
