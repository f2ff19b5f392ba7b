"""Parameter names of the book's GPTModel (chapter 4), converted to and from Tokenloom's GPT-2.

The book has separate query, key and value layers where Tokenloom has one, and stores the causal mask as a buffer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.errors import WeightsError
from tokenloom.weights.lazy_tensors import LazyTensor, StoredTensor

# The keys of the book's GPT_CONFIG_124M and the fields of `ModelConfig`.
BOOK_SETTINGS = {
    "context_length": "block_size",
    "emb_dim": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
    "drop_rate": "dropout",
}
QKV = ("W_query", "W_key", "W_value")
MASK = "att.mask"

_OUTSIDE_BLOCKS = {
    "tok_emb.weight": "wte.weight",
    "pos_emb.weight": "wpe.weight",
    "final_norm.scale": "ln_f.weight",
    "final_norm.shift": "ln_f.bias",
    "out_head.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "att.out_proj.weight": "attn.c_proj.weight",
    "att.out_proj.bias": "attn.c_proj.bias",
    "ff.layers.0.weight": "mlp.c_fc.weight",
    "ff.layers.0.bias": "mlp.c_fc.bias",
    "ff.layers.2.weight": "mlp.c_proj.weight",
    "ff.layers.2.bias": "mlp.c_proj.bias",
    "norm1.scale": "ln_1.weight",
    "norm1.shift": "ln_1.bias",
    "norm2.scale": "ln_2.weight",
    "norm2.shift": "ln_2.bias",
}
_BLOCK = re.compile(r"trf_blocks\.(\d+)\.(.+)")
_QKV = re.compile(rf"att\.(?:{'|'.join(QKV)})\.(weight|bias)")


def is_book_state(state: Mapping[str, object]) -> bool:
    """Whether a state dict has the book's names."""
    return "tok_emb.weight" in state


def state_from_book(state: Mapping[str, LazyTensor]) -> dict[str, StoredTensor]:
    """The tensors of the book's GPTModel by Tokenloom's names; raises `WeightsError` for an unexpected name."""
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in state.items():
        if name.endswith(MASK):
            continue
        block = _BLOCK.fullmatch(name)
        if block is None:
            target = _OUTSIDE_BLOCKS.get(name)
        elif qkv := _QKV.fullmatch(block[2]):
            target, tensor = f"attn.c_attn.{qkv[1]}", _fused_qkv(state, block[1], qkv[1])
        else:
            target = _IN_BLOCK.get(block[2])
        if target is None:
            raise WeightsError(
                f"{name} is not a tensor of the book's GPTModel. Save the state dict of the model alone."
            )
        tensors[f"h.{block[1]}.{target}" if block else target] = tensor
    return tensors


def state_to_book(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A GPT-2's state dict with the names and the order of the book's GPTModel, head and masks included."""
    book = {name: state[_OUTSIDE_BLOCKS[name]] for name in ("tok_emb.weight", "pos_emb.weight")}
    mask = torch.ones(config.block_size, config.block_size).triu(1)
    for i in range(config.n_layer):
        book[f"trf_blocks.{i}.{MASK}"] = mask.clone()
        fused = {kind: state.get(f"h.{i}.attn.c_attn.{kind}") for kind in ("weight", "bias")}
        split = {kind: tensor.chunk(3) for kind, tensor in fused.items() if tensor is not None}
        for part, name in enumerate(QKV):
            book |= {f"trf_blocks.{i}.att.{name}.{kind}": parts[part] for kind, parts in split.items()}
        book |= {f"trf_blocks.{i}.{name}": state[f"h.{i}.{source}"] for name, source in _IN_BLOCK.items()}
    return book | {name: state[source] for name, source in _OUTSIDE_BLOCKS.items() if name not in book}


def _fused_qkv(state: Mapping[str, LazyTensor], block: str, kind: str) -> LazyTensor:
    """The query, key and value tensors of a block as one."""
    parts: list[LazyTensor] = []
    for name in QKV:
        part = state.get(f"trf_blocks.{block}.att.{name}.{kind}")
        if part is None:
            raise WeightsError(
                f"the weights lack trf_blocks.{block}.att.{name}.{kind}, but have others of {', '.join(QKV)}. "
                "Save the whole model."
            )
        parts.append(part)
    return _Concatenated(parts)


@dataclass(frozen=True)
class _Concatenated:
    """Lazy tensors of one shape, concatenated along their rows."""

    parts: Sequence[LazyTensor]

    @property
    def shape(self) -> Sequence[int]:
        rows, *others = self.parts[0].shape
        return (rows * len(self.parts), *others)

    def __getitem__(self, rows: slice, /) -> Tensor:
        part_rows = self.parts[0].shape[0]
        start, stop, _ = rows.indices(self.shape[0])
        slices = [
            part[max(0, start - i * part_rows) : max(0, stop - i * part_rows)]
            for i, part in enumerate(self.parts)
            if start < (i + 1) * part_rows and stop > i * part_rows
        ]
        return torch.cat(slices)
