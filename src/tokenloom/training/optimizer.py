"""AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from tokenloom.compute.sharded_tensors import shard_like
from tokenloom.config import TrainConfig
from tokenloom.errors import CheckpointError
from tokenloom.training.muon import Muon, by_shape
from tokenloom.training.schedule import learning_rate, muon_learning_rate

LEARNING_RATES = {"adamw": learning_rate, "muon": muon_learning_rate}
# The state of a parameter; AdamW's count of steps is a scalar.
STATE = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}


class Optimizer:
    """One or two torch optimizers that are stepped together; their state is saved under parameter names.

    Weight decay applies to matrices and embeddings, not to gains and biases. Sources: AdamW arXiv:1711.05101;
    Muon: Jordan et al. 2024, and arXiv:2502.16982.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.names: dict[nn.Parameter, str] = {parameter: name for name, parameter in model.named_parameters()}
        matrices = [p for name, p in model.named_parameters() if name.startswith("h.") and p.ndim == 2]
        muon_params = set(matrices if config.optimizer == "muon" else ())
        rest = [p for p in model.parameters() if p not in muon_params]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.parts: dict[str, torch.optim.Optimizer] = {
            "adamw": AdamW(
                [group for group in groups if group["params"]],
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                fused=rest[0].device.type in ("cpu", "cuda"),
            )
        }
        if muon_params:
            self.parts["muon"] = Muon(
                [p for p in matrices if p in muon_params],
                lr=config.muon_learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="original",
            )

    def step(self, step: int) -> dict[str, float]:
        """Update the weights after `step` finished steps; returns the learning rate of each part."""
        rates = {kind: LEARNING_RATES[kind](step, self.config) for kind in self.parts}
        for kind, part in self.parts.items():
            for group in part.param_groups:
                group["lr"] = rates[kind]
            part.step()
        return rates

    def zero_grad(self) -> None:
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state of all parts, as `adamw/exp_avg/<parameter>`."""
        return {
            f"{kind}/{key}/{self.names[cast(nn.Parameter, parameter)]}": value
            for kind, part in self.parts.items()
            for parameter, state in part.state.items()
            for key, value in state.items()
        }

    def state_shapes(self) -> dict[str, torch.Size]:
        """Names and shapes of what `state_tensors` returns after the first step, in its order."""
        parameters = {kind: _parameters(part) for kind, part in self.parts.items()}
        if "muon" in parameters:
            parameters["muon"] = [matrix for same in self.muon_matrices() for matrix in same]
        scalar = torch.Size()
        return {
            f"{kind}/{key}/{self.names[parameter]}": scalar if key == "step" else parameter.shape
            for kind, of_kind in parameters.items()
            for parameter in of_kind
            for key in STATE[kind]
        }

    def muon_matrices(self) -> list[list[nn.Parameter]]:
        """The matrices that Muon updates, in groups of one shape; empty without Muon."""
        return by_shape(_parameters(self.parts["muon"])) if "muon" in self.parts else []

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that `state_tensors` returned, whole; raises `CheckpointError` if it does not match.

        If the model is sharded, this is collective, and the values are those of the main process.
        """
        parameters = {
            (kind, self.names[parameter]): parameter
            for kind, part in self.parts.items()
            for group in part.param_groups
            for parameter in group["params"]
        }
        missing = set(parameters if tensors else ())  # before its first step, an optimizer has no state
        for path, tensor in tensors.items():
            kind, _, rest = path.partition("/")
            key, _, name = rest.partition("/")
            parameter = parameters.get((kind, name))
            if parameter is None or (tensor.ndim > 0 and tensor.shape != parameter.shape):
                raise CheckpointError(
                    f"the saved optimizer state has {path} {tuple(tensor.shape)}, which does not match this run's "
                    f"{'+'.join(self.parts)}. Resume with the saved configuration."
                )
            missing.discard((kind, name))
            # The moments are where the parameter is; AdamW accepts its step count there as well.
            self.parts[kind].state[parameter][key] = shard_like(tensor, parameter)
        if missing:
            kind, name = min(missing)
            raise CheckpointError(
                f"the saved optimizer state has no {kind} state for {name}. Resume with the saved configuration."
            )


def _parameters(part: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in part.param_groups for parameter in group["params"]]
