"""The names that the book's classes give to a GPT-2's tensors (chapter 4), to ours and back.

The book has three layers for queries, keys and values where we have one, and keeps the causal mask among the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.errors import WeightsError
from tokenloom.weights.lazy_tensors import LazyOrTransposed, LazyTensor

# The book's settings (GPT_CONFIG_124M) under our names.
BOOK_SETTINGS = {
    "context_length": "block_size",
    "emb_dim": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
    "drop_rate": "dropout",
}
QKV = ("W_query", "W_key", "W_value")
MASK = "att.mask"

_OUTSIDE = {
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


def is_book_state(state: Mapping[str, object]) -> bool:
    return "tok_emb.weight" in state


def state_from_book(state: Mapping[str, LazyTensor]) -> dict[str, LazyOrTransposed]:
    """The tensors of the book's GPTModel under our names; raises `WeightsError` for a name that is not the book's."""
    ours: dict[str, LazyOrTransposed] = {}
    for name, tensor in state.items():
        if name.endswith(MASK):
            continue
        block = _BLOCK.fullmatch(name)
        place = block[2] if block else name
        if place.startswith(tuple(f"att.{part}." for part in QKV)):
            kind = place.rpartition(".")[2]
            parts = [state.get(f"trf_blocks.{block[1]}.att.{part}.{kind}") for part in QKV]  # type: ignore[index]
            if None in parts:
                raise WeightsError(f"the weights have {name}, but not all of {', '.join(QKV)}. Save the whole model.")
            ours[f"h.{block[1]}.attn.c_attn.{kind}"] = _Stacked(parts)  # type: ignore[index,arg-type]
        elif block and place in _IN_BLOCK:
            ours[f"h.{block[1]}.{_IN_BLOCK[place]}"] = tensor
        elif name in _OUTSIDE:
            ours[_OUTSIDE[name]] = tensor
        else:
            raise WeightsError(f"{name} is no tensor of the book's GPTModel. Save the state dict of the model alone.")
    return ours


def state_to_book(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A GPT-2's state dict as the book's GPTModel gives it: its names, its order, the head and the masks included."""
    book = {name: state[_OUTSIDE[name]] for name in ("tok_emb.weight", "pos_emb.weight")}
    masked = torch.ones(config.block_size, config.block_size).triu(1)
    for i in range(config.n_layer):
        book[f"trf_blocks.{i}.{MASK}"] = masked.clone()
        qkv = {kind: state.get(f"h.{i}.attn.c_attn.{kind}") for kind in ("weight", "bias")}
        split = {kind: tensor.chunk(3) for kind, tensor in qkv.items() if tensor is not None}
        for row, part in enumerate(QKV):
            book |= {f"trf_blocks.{i}.att.{part}.{kind}": parts[row] for kind, parts in split.items()}
        book |= {f"trf_blocks.{i}.{name}": state[f"h.{i}.{ours}"] for name, ours in _IN_BLOCK.items()}
    return book | {name: state[ours] for name, ours in _OUTSIDE.items() if name not in book}


@dataclass(frozen=True)
class _Stacked:
    """Lazy tensors of one shape, one below the other."""

    parts: Sequence[LazyTensor]

    @property
    def shape(self) -> Sequence[int]:
        rows, *others = self.parts[0].shape
        return (rows * len(self.parts), *others)

    def __getitem__(self, rows: slice, /) -> Tensor:
        each = self.parts[0].shape[0]
        start, stop, _ = rows.indices(self.shape[0])
        pieces = [
            part[max(0, start - i * each) : max(0, stop - i * each)]
            for i, part in enumerate(self.parts)
            if start < (i + 1) * each and stop > i * each
        ]
        return torch.cat(pieces)
