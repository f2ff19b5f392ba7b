"""The estimate of what a block keeps for the backward pass is what autograd keeps."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tokenloom.compute.hardware import Hardware
from tokenloom.config import ModelConfig
from tokenloom.model import build
from tokenloom.model.activations import block_bytes, head_bytes, kept_bytes

SEQUENCES = 3
SHAPE = {"vocab_size": 70, "block_size": 32, "n_embd": 48, "n_head": 4}
CONFIGS = {
    "gpt2": {"family": "gpt2"},
    "modern": {"family": "modern"},
    "modern with its own widths": {"family": "modern", "n_kv_head": 2, "head_dim": 10, "n_inner": 56},
}
PRECISIONS = {"fp32": Hardware("cpu", "fp32", fast_bf16=False), "bf16": Hardware("cpu", "bf16", fast_bf16=True)}


def kept(config: ModelConfig, hardware: Hardware) -> int:
    """Bytes that autograd keeps until the hidden states are there, without the weights themselves."""
    model = build(config, torch.Generator().manual_seed(1)).train()
    known = [tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    held, storages = [], {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)  # so that no other tensor gets its address
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.zeros(SEQUENCES, config.block_size, dtype=torch.long)
    enabled = hardware.precision == "bf16"
    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        model.hidden(ids)
    return sum(storages.values())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_block_keeps_what_autograd_keeps(family, dropout, precision):
    hardware = PRECISIONS[precision]
    one, two = (ModelConfig(n_layer=layers, dropout=dropout, **SHAPE, **CONFIGS[family]) for layers in (1, 2))
    measured = kept(two, hardware) - kept(one, hardware)
    block = build(one).h[0]
    linear = [layer for layer in block.modules() if isinstance(layer, torch.nn.Linear)]
    weights = sum(layer.weight.numel() for layer in linear)
    converted = hardware.dtype.itemsize * weights if precision == "bf16" else 0
    assert measured == pytest.approx(block_bytes(one, SEQUENCES, hardware) + converted, rel=0.02)


def test_recomputed_activations_are_the_inputs_of_all_blocks_and_those_of_one():
    config = ModelConfig(n_layer=6, **SHAPE)
    hardware = PRECISIONS["fp32"]
    tokens = SEQUENCES * config.block_size
    block = block_bytes(config, SEQUENCES, hardware)
    temporary = kept_bytes(config, SEQUENCES, hardware) - 6 * block
    assert 0 < temporary < block / 2
    recomputed = kept_bytes(config, SEQUENCES, hardware, recomputed=True)
    assert recomputed == 6 * 4 * tokens * config.n_embd + block + temporary


def test_the_logits_of_a_large_batch_are_those_of_a_chunk():
    config = ModelConfig(n_layer=1, n_embd=64, n_head=4, vocab_size=50_257, block_size=1024)
    hardware = Hardware("cuda", "bf16", fast_bf16=True)
    added = head_bytes(config, 9, hardware) - head_bytes(config, 8, hardware)
    assert added == 1024 * 64 * (4 + 2 + 2)  # the inputs of the norm and of the head, and a gradient
