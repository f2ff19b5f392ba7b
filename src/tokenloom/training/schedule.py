"""Learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from tokenloom.config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """AdamW's learning rate after `step` finished steps.

    Rises linearly from `initial_lr` to `learning_rate` over `warmup_steps`, then follows `schedule` down to `min_lr` at
    `max_steps`. Sources: the book, appendices D.1 and D.2; wsd (Warmup–Stable–Decay): arXiv:2404.06395, section 4.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    if step < warmup:
        return config.initial_lr + (peak - config.initial_lr) * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, config.max_steps - warmup))
    return config.min_lr + (peak - config.min_lr) * _SHAPES[config.schedule](progress, config.decay_fraction)


def muon_learning_rate(step: int, config: TrainConfig) -> float:
    """Muon's learning rate: the same fraction of its peak as AdamW's at every step."""
    return config.muon_learning_rate * learning_rate(step, config) / config.learning_rate


# Learning rate above min_lr as a fraction of its peak, by progress after the warmup (0 to 1) and decay_fraction.
_SHAPES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda progress, _: 1.0,
    "linear": lambda progress, _: 1 - progress,
    "cosine": lambda progress, _: 0.5 * (1 + math.cos(math.pi * progress)),
    "wsd": lambda progress, decay: min(1.0, (1 - progress) / decay),
}
