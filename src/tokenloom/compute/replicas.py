"""Data-parallel training: every process has the whole model, and gradients are summed in buckets.

torch's DistributedDataParallel is not used for two reasons. It rearranges its buckets after the first step, which
changes the order of sums, so that with more than two processes a resumed run would not get the bits of an uninterrupted
one. And it averages, while each process here divides its loss by the token count of the whole step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tokenloom.compute.parallel import Work, World

BUCKET_BYTES = 25 << 20  # as in DistributedDataParallel: large enough for the bandwidth, several for each backward pass


class Replicas:
    """Equal copies of a model. Gradients are summed while the last backward pass of a step still runs."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        world.broadcast_tensors(model.parameters())
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # The backward pass computes the gradients of the last layers first.
        self._buckets = [_Bucket(group) for group in _groups(reversed(parameters))]
        self._is_last, self._started = False, 0
        # Parameters keep their hooks, which must not keep the model in turn.
        replicas: weakref.ref[Replicas] = weakref.ref(self)
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(_hook(replicas, number))  # pyright: ignore  # not annotated

    @contextmanager
    def micro_batch(self, *, is_last: bool) -> Generator[None]:
        """A context for the forward and backward pass of one micro-batch; gradients are the sums after the last one."""
        for bucket in self._buckets:
            bucket.attach()
        self._is_last, self._started = is_last, 0
        yield
        if is_last:
            self._start(len(self._buckets))  # those with a parameter that has no gradient
            for bucket in self._buckets:
                if bucket.work is not None:
                    self._world.wait(bucket.work)
                    bucket.work = None

    def accumulated(self, number: int) -> None:
        """A gradient of the bucket of this number is complete for this micro-batch."""
        if not self._is_last:
            return
        self._buckets[number].missing -= 1
        ready = self._started
        while ready < len(self._buckets) and self._buckets[ready].missing == 0:
            ready += 1
        self._start(ready)

    def _start(self, stop: int) -> None:
        """Start the sums of the buckets before `stop`: in the same order in every process."""
        for bucket in self._buckets[self._started : stop]:
            bucket.work = self._world.start_all_reduce(bucket.gradients)
        self._started = stop


class _Bucket:
    """Gradients of some parameters that are summed at once."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        first = parameters[0]
        size = sum(parameter.numel() for parameter in parameters)
        self.gradients = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.missing = 0
        self.work: Work | None = None

    def attach(self) -> None:
        """Begin a micro-batch. If it is the first of a step, the gradients are set to zero, as parts of the bucket."""
        self.missing = len(self.parameters)
        if self.parameters[0].grad is None:
            self.gradients.zero_()
            parts = torch.split(self.gradients, [parameter.numel() for parameter in self.parameters])
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.grad = part.view_as(parameter)


def _groups(parameters: Iterable[nn.Parameter]) -> Generator[list[nn.Parameter]]:
    """Parameters of one type and device, in groups of about `BUCKET_BYTES`."""
    group: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if group and (
            size + parameter.nbytes > BUCKET_BYTES
            or (parameter.dtype, parameter.device) != (group[0].dtype, group[0].device)
        ):
            yield group
            group, size = [], 0
        group.append(parameter)
        size += parameter.nbytes
    if group:
        yield group


def _hook(replicas: weakref.ref[Replicas], number: int) -> Callable[[Tensor], None]:
    def accumulated(_: Tensor) -> None:
        owner = replicas()
        if owner is not None:
            owner.accumulated(number)

    return accumulated
