"""TensorFlow checkpoints, written by TensorFlow (openai-checkpoints/write_checkpoint.py): values, checksums, errors."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tokenloom.errors import TokenloomError, WeightsError
from tokenloom.weights.tensor_bundle import _block, _handle, crc32c, masked, open_bundle

WRITTEN = Path(__file__).parent / "openai-checkpoints"


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(WRITTEN / "gpt2", tmp_path / "gpt2"))


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_checksums_match_published_values(data, crc):
    """RFC 3720, appendix B.4."""
    assert crc32c(data) == crc


def test_the_checksum_of_chunks_is_that_of_the_whole():
    data = np.random.default_rng(1).integers(0, 256, 270_001, dtype=np.uint8).tobytes()
    crc = 0
    for start in range(0, len(data), 3000):
        crc = crc32c(data[start : start + 3000], crc)
    assert crc == crc32c(data)


def test_the_mask_is_leveldbs():
    assert masked(0) == 0xA282EAD8


@pytest.mark.parametrize("name", ["gpt2", "several-files"])
def test_every_tensor_is_bit_equal(name):
    expected = load_file(WRITTEN / name / "expected.safetensors")
    tensors = open_bundle(WRITTEN / name / "model.ckpt")
    assert tensors.keys() == expected.keys()
    for variable, tensor in tensors.items():
        tensor.verify()
        assert np.array_equal(tensor[:].numpy(), expected[variable])
    assert len({tensor.file for tensor in tensors.values()}) == (3 if name == "several-files" else 1)


def test_an_index_of_several_blocks_is_read_whole():
    tensors = open_bundle(WRITTEN / "several-blocks" / "model.ckpt")
    assert len(tensors) == 9000
    for number, (name, tensor) in enumerate(tensors.items()):
        assert name.endswith(f"variable-{number:05d}")
        if number % 50 == 0:
            tensor.verify()
            assert tensor[:].tolist() == [number]


def test_rows_are_read_alone():
    tensor = open_bundle(WRITTEN / "gpt2" / "model.ckpt")["model/wte"]
    expected = load_file(WRITTEN / "gpt2" / "expected.safetensors")["model/wte"]
    assert np.array_equal(tensor[7:19].numpy(), expected[7:19])


@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["model.ckpt.index", "model.ckpt.data-00000-of-00001"])
def test_corruptions_are_detected_or_change_no_tensor(folder, name, count):
    """Half of them are a flipped bit, half a truncation."""
    intact = {variable: tensor[:].clone() for variable, tensor in open_bundle(folder / "model.ckpt").items()}
    file, generator = folder / name, random.Random(3)
    good = file.read_bytes()
    undetected = 0
    for _ in range(count // 2):
        for corrupt in (_flip_bit, _truncate):
            file.write_bytes(corrupt(good, generator))
            try:
                tensors = open_bundle(folder / "model.ckpt")
                for tensor in tensors.values():
                    tensor.verify()
            except TokenloomError:
                pass
            else:
                undetected += 1
                assert tensors.keys() == intact.keys()
                assert all(torch.equal(tensor[:], intact[variable]) for variable, tensor in tensors.items())
    # The handle and the checksum of the table's metaindex, which is not read, and the padding of the footer.
    assert undetected < 0.05 * count


def _flip_bit(data: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << generator.randrange(8)]) + data[at + 1 :]


def _truncate(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def test_a_compressed_index_is_refused_by_name(folder):
    """The first block is marked as compressed by Snappy, with a valid checksum."""
    index = folder / "model.ckpt.index"
    data = bytearray(index.read_bytes())
    _, _, at = _handle(bytes(data), len(data) - 48)  # the footer starts with the handle of the metaindex
    start, size, _ = _handle(bytes(data), at)
    (_, first), *_ = _block(bytes(data), start, size)
    offset, length, _ = _handle(first, 0)
    data[offset + length] = 1
    checksum = masked(crc32c(bytes(data[offset : offset + length + 1])))
    data[offset + length + 1 : offset + length + 5] = checksum.to_bytes(4, "little")
    index.write_bytes(data)
    with pytest.raises(WeightsError, match="compressed"):
        open_bundle(folder / "model.ckpt")
