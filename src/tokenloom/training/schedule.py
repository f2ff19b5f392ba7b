"""Learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from tokenloom.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """AdamW's learning rate after `step` finished steps.

    Rises linearly from `initial_lr` to `learning_rate` over `warmup_steps`, then follows `schedule` down to `min_lr` at
    `max_steps`. Sources: the book, appendices D.1 and D.2; wsd (Warmup–Stable–Decay): arXiv:2404.06395, section 4.

    If `max_steps` was changed on the way, the steps before the change keep their rates, and the schedule of the new
    number of steps is scaled so that it continues from the rate of the last one of them.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return config.initial_lr + (peak - config.initial_lr) * (step + 1) / warmup
    return config.min_lr + (peak - config.min_lr) * _fraction(step, config)


def muon_learning_rate(step: int, config: TrainConfig) -> float:
    """Muon's learning rate: the same fraction of its peak as AdamW's at every step."""
    return config.muon_learning_rate * learning_rate(step, config) / config.learning_rate


def settings_at(step: int, config: TrainConfig) -> TrainConfig:
    """The settings with the `max_steps` that applied after `step` finished steps.

    With them, a resumed run repeats steps from before a change as they were.
    """
    for number, (change, max_steps) in enumerate(config.earlier_max_steps):
        if step < change:
            earlier = config.earlier_max_steps[:number]
            return config.model_copy(update={"max_steps": max_steps, "earlier_max_steps": earlier})
    return config


# Learning rate above min_lr as a fraction of its peak, by progress after the warmup (0 to 1) and decay_fraction.
_SHAPES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda progress, _: 1.0,
    "linear": lambda progress, _: 1 - progress,
    "cosine": lambda progress, _: 0.5 * (1 + math.cos(math.pi * progress)),
    "wsd": lambda progress, decay: min(1.0, (1 - progress) / decay),
}


def _fraction(step: int, config: TrainConfig) -> float:
    """Learning rate above `min_lr` as a fraction of its peak, after the warmup."""
    current = settings_at(step, config)
    fraction = _planned_fraction(step, current)
    if current.earlier_max_steps:
        last = current.earlier_max_steps[-1][0] - 1  # a step that was made, so its rate is not 0 in either plan
        fraction *= _fraction(last, current) / _planned_fraction(last, current)
    return fraction


def _planned_fraction(step: int, config: TrainConfig) -> float:
    """The same without earlier values of `max_steps`; 1 in the warmup."""
    progress = min(1.0, max(0, step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps))
    return _SHAPES[config.schedule](progress, config.decay_fraction)
