"""Muon, with the matrices of one shape orthogonalized together: one batched product instead of many small ones."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenloom.compute.matrix_owners import map_whole_matrices
from tokenloom.compute.runtime import has_fast_bf16
from tokenloom.compute.sharded_tensors import is_sharded, local

T = TypeVar("T", bound=Tensor)


class Muon(torch.optim.Muon):
    """torch's Muon, with the updates of all matrices of a shape computed at once.

    The result is the same, except for rounding: torch computes the products in bf16 on every device, this class in fp32
    where bf16 is slow. If the weights are sharded, each matrix is orthogonalized by one process. Source: Jordan et al.
    2024, "Muon: An optimizer for hidden layers in neural networks".
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch declares an optional closure
        assert closure is None, "the training step computes the gradient"
        for group in self.param_groups:
            done = 0
            trained: list[Tensor] = [weight for weight in group["params"] if weight.grad is not None]
            for weights in by_shape(trained):
                rows, columns = weights[0].shape
                updates = _orthogonalized([self._momentum_update(weight, group) for weight in weights], group, done)
                done += len(weights)
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                for weight, update in zip(map(local, weights), updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _momentum_update(self, weight: Tensor, group: Mapping[str, Any]) -> Tensor:
        """The running mean of the gradients, with Nesterov momentum if configured."""
        assert weight.grad is not None
        state, momentum = self.state[weight], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum) if group["nesterov"] else mean


def by_shape(matrices: Iterable[T]) -> list[list[T]]:
    """Matrices in groups of one shape, which are orthogonalized together, in this order."""
    groups: dict[torch.Size, list[T]] = defaultdict(list)
    for matrix in matrices:
        groups[matrix.shape].append(matrix)
    return list(groups.values())


def update_bytes(count: int, rows: int, columns: int, itemsize: int, processes: int = 1) -> int:
    """Bytes of the temporary tensors of an update of `count` matrices, at most, in a process that shares them.

    `itemsize` is that of the type in which they are orthogonalized.
    """
    if processes == 1:
        values = count * rows * columns
        converted = itemsize * values if itemsize < 4 else 0
        return 8 * values + converted + _iteration_bytes(count, rows, columns, itemsize)
    own_rows = count * -(-rows // processes) * columns
    owned = -(-count // processes)
    exchanged = 2 * itemsize * (own_rows + owned * rows * columns)
    return 4 * own_rows + exchanged + _iteration_bytes(owned, rows, columns, itemsize)


def orthogonalize(
    matrices: Tensor,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Matrices (N, rows, columns) with the same singular vectors and singular values near 1, in `dtype`.

    A Newton–Schulz iteration of fifth order, on matrices scaled to a Frobenius norm of at most 1.
    """
    a, b, c = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(dtype)
    x = x.transpose(1, 2) if is_tall else x  # the product of the smaller side with itself is cheaper
    squares = x.float().square().sum(dim=(1, 2), keepdim=True)
    x = (x / squares.sqrt().clamp(min=eps)).to(dtype)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if is_tall else x


def _iteration_bytes(count: int, rows: int, columns: int, itemsize: int) -> int:
    """Bytes of what `orthogonalize` allocates: first the squares in fp32, then two matrices and two products."""
    values, products = count * rows * columns, count * min(rows, columns) ** 2
    return max(8 * values, 2 * itemsize * (values + products))


def _orthogonalized(updates: Sequence[Tensor], group: Mapping[str, Any], before: int) -> Iterable[Tensor]:
    """This process's rows of each orthogonalized update, after `before` matrices of other shapes."""
    dtype = torch.bfloat16 if has_fast_bf16(updates[0].device) else torch.float32

    def of_stack(matrices: Tensor) -> Tensor:
        return orthogonalize(matrices, group["ns_coefficients"], group["ns_steps"], group["eps"], dtype)

    if not is_sharded(updates[0]):
        return of_stack(torch.stack(list(updates)))
    # The iteration begins with this conversion; before the exchange it halves what is sent.
    return map_whole_matrices(of_stack, [update.to(dtype) for update in updates], first_owner=before)
