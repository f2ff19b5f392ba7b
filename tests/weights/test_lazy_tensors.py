"""Models read slice by slice: any slice size, other precisions, tied and transposed weights, peak memory."""

import subprocess
import sys

import pytest
import torch

from tokenloom.config import ModelConfig
from tokenloom.errors import CheckpointError
from tokenloom.model.gpt2 import GPT2
from tokenloom.weights import lazy_tensors
from tokenloom.weights.folder import read_folder, write_folder
from tokenloom.weights.lazy_tensors import LazyModel, Transposed


def test_slices_of_any_size_give_the_same_model(tmp_path, model, monkeypatch):
    write_folder(tmp_path, model, eot_id=0)
    monkeypatch.setattr(lazy_tensors, "SLICE_BYTES", 100)
    again = read_folder(tmp_path).read()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_a_model_is_read_in_the_requested_precision(tmp_path, model):
    write_folder(tmp_path, model, eot_id=0)
    again = read_folder(tmp_path).read(torch.bfloat16)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].bfloat16())


def test_values_that_are_too_large_for_the_requested_precision_are_refused(model_of):
    model = model_of("gpt2")
    stored = LazyModel(model.config, {**model.state_dict(), "wpe.weight": torch.full((16, 16), 7e4)}, "file")
    assert stored.read(torch.bfloat16).wpe.weight.isfinite().all()
    with pytest.raises(CheckpointError, match="file: tensor wpe.weight cannot be read: it has values that are too"):
        stored.read(torch.float16)


def test_a_tied_head_stays_tied(tmp_path, model_of):
    write_folder(tmp_path, model_of("gpt2", tie_embeddings=True), eot_id=0)
    again = read_folder(tmp_path).read()
    assert again.lm_head.weight is again.wte.weight


def test_a_transposed_matrix_is_read_as_its_transpose(model_of):
    model = model_of("gpt2")
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    name = "h.0.mlp.c_fc.weight"
    again = LazyModel(model.config, tensors | {name: Transposed(tensors[name].T)}, "memory").read()
    assert torch.equal(again.state_dict()[name], tensors[name])


PEAK = """
import sys, torch
from pathlib import Path
from tokenloom.weights.folder import read_folder
def peak():  # ru_maxrss would include the parent's memory
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
before = peak()
model = read_folder(Path(sys.argv[1])).read(getattr(torch, sys.argv[2]))
print((peak() - before) / sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with 200 MB of weights."""
    folder = tmp_path_factory.mktemp("weights")
    shape = {"vocab_size": 20_000, "block_size": 64, "n_layer": 8, "n_head": 8, "n_embd": 640, "qkv_bias": True}
    write_folder(folder, GPT2(ModelConfig(family="gpt2", **shape)), eot_id=0)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_needs_little_more_memory_than_the_weights(weights, dtype):
    """1.15 is documented for 3 GB of weights; of these 200 MB, two slices and lazy imports are a larger share."""
    done = subprocess.run([sys.executable, "-c", PEAK, weights, dtype], capture_output=True, text=True, check=True)
    assert float(done.stdout) < (1.3 if dtype == "float32" else 1.6)
