"""The tensors of a training run without their values: weights, optimizer state, and what is divided together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from tokenloom.config import Config
from tokenloom.model import build
from tokenloom.training.optimizer import Optimizer

Shape = tuple[int, ...]
VALUE_BYTES = 4  # weights, gradients and optimizer state are in fp32


@dataclass(frozen=True)
class RunTensors:
    """Shapes of the tensors of a run. Those of fsdp are gathered block by block, and `outside` the blocks at once."""

    blocks: Sequence[Sequence[Shape]]
    """The parameters of each block."""
    outside: Sequence[Shape]
    """The other parameters: embeddings, the last norm, and the output head if it is not tied."""
    products: int
    """Number of weights in the linear layers of the blocks."""
    matrices: Mapping[Shape, int]
    """Shapes of the matrices that Muon updates, and how many there are of each, in its order."""
    weights: Mapping[str, Shape]
    """The tensors of a checkpoint's weights, by name."""
    optimizer: Mapping[str, Shape]
    """The optimizer state, by name."""

    @property
    def parameters(self) -> list[Shape]:
        return [shape for group in (*self.blocks, self.outside) for shape in group]


def run_tensors(config: Config) -> RunTensors:
    """The tensors of a run; no memory is allocated for them."""
    with torch.device("meta"):
        model = build(config.model)
    optimizer = Optimizer(model, config.train)
    blocks = list(cast("Iterable[nn.Module]", model.h))
    inside = {parameter for block in blocks for parameter in block.parameters()}
    weights = {name: _shape(tensor) for name, tensor in model.state_dict().items()}
    if config.model.tie_embeddings:
        del weights["lm_head.weight"]
    return RunTensors(
        blocks=[_shapes(block.parameters()) for block in blocks],
        outside=_shapes(parameter for parameter in model.parameters() if parameter not in inside),
        products=sum(parameter.numel() for block in blocks for parameter in _linear_parameters(block)),
        matrices={_shape(same[0]): len(same) for same in optimizer.muon_matrices()},
        weights=weights,
        optimizer={name: tuple(shape) for name, shape in optimizer.state_shapes().items()},
    )


def _linear_parameters(block: nn.Module) -> Iterable[nn.Parameter]:
    return (parameter for layer in block.modules() if isinstance(layer, nn.Linear) for parameter in layer.parameters())


def _shapes(tensors: Iterable[torch.Tensor]) -> list[Shape]:
    return [_shape(tensor) for tensor in tensors]


def _shape(tensor: torch.Tensor) -> Shape:
    return tuple(tensor.shape)
