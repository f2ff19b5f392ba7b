"""The rule of a time budget: vocabulary, shape, context, batch and weight decay for a text, a machine and a time.

A pure function of a few numbers. Decision 14 has the measurements behind its constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tokenloom.config import ModelConfig, Settings, TrainConfig
from tokenloom.model.flops import training_flops_per_token

HEAD_SIZE = 64
MIN_SECONDS = 1.0  # less is refused later, with the reason
TRAINING_SHARE = 0.85  # of the time is spent in training steps; the rest in start, evaluations and saving
# Compute-optimal size: FLOPs = 20 · weights², about three tokens for each weight of the blocks.
FLOPS_PER_SQUARED_WEIGHT = 20.0
MIN_DEPTH, MAX_DEPTH = 2, 16
# Characters learn more than a learned vocabulary once there is time to read them so often.
CHARACTER_EPOCHS = 4.0
# A learned vocabulary repeats the text at most so often. If even characters repeat it more often, a larger model gains
# more from the time than another epoch.
MAX_EPOCHS, MAX_EXTRA_DEPTH = 8.0, 2
# The largest vocabulary that a model of a width learns: factor · width ** exponent.
VOCABULARY_FACTOR, VOCABULARY_EXPONENT = 0.9, 1.49
SHORT_CONTEXT, LONG_CONTEXT, LONG_CONTEXT_TOKENS = 128, 256, 3e6
STEPS, MIN_BATCH_TOKENS = 2000, 1024
# Weight decay · learning rate · steps: at least 2.5, and 1.7 for each epoch.
MIN_STRENGTH, STRENGTH_PER_EPOCH, MAX_DECAY = 2.5, 1.7, 1.0
# Bytes of text per token of a learned vocabulary; 0 stands for characters.
BYTES_PER_TOKEN: Mapping[int, float] = {
    0: 1.0,
    512: 2.0,
    1024: 2.5,
    2048: 3.0,
    4096: 3.4,
    8192: 3.8,
    16384: 4.1,
    32768: 4.3,
}
CHARACTERS = 200  # assumed size of a vocabulary of characters


@dataclass(frozen=True)
class Choice:
    """Settings, and the reasons for them, a line each."""

    settings: Settings
    reasons: tuple[str, ...]


def choose(
    seconds: float, flops_per_second: float, text_bytes: int | None = None, vocabulary: int | None = None
) -> Choice:
    """The settings for `seconds` on a machine whose training steps reach `flops_per_second`.

    `text_bytes` is the size of the training text; None if unknown, which counts as large. A `vocabulary` that is
    already fixed is the number of its tokens, or 0 for characters.
    """
    compute = TRAINING_SHARE * max(seconds, MIN_SECONDS) * flops_per_second
    weights = math.sqrt(compute / FLOPS_PER_SQUARED_WEIGHT)
    depth = min(MAX_DEPTH, max(MIN_DEPTH, round((weights / (12 * HEAD_SIZE**2)) ** (1 / 3))))
    if vocabulary is None:
        vocabulary = _vocabulary(depth, compute, text_bytes)
    larger = range(depth, min(MAX_DEPTH, depth + MAX_EXTRA_DEPTH) + 1)
    depth = next((d for d in larger if _epochs(d, vocabulary, compute, text_bytes) <= MAX_EPOCHS), larger[-1])
    tokens, epochs = _tokens(depth, vocabulary, compute), _epochs(depth, vocabulary, compute, text_bytes)
    context = LONG_CONTEXT if tokens >= LONG_CONTEXT_TOKENS else SHORT_CONTEXT
    batch_tokens = max(MIN_BATCH_TOKENS, 2 ** round(math.log2(tokens / STEPS)))
    steps = max(1.0, tokens / batch_tokens)
    strength = max(MIN_STRENGTH, STRENGTH_PER_EPOCH * epochs)
    decay = round(min(MAX_DECAY, strength / (TrainConfig().muon_learning_rate * steps)), 3)
    settings: Settings = {
        "data": {"tokenizer": f"bpe:{vocabulary}" if vocabulary else "char"},
        "model": {"n_layer": depth, "n_head": depth, "n_embd": HEAD_SIZE * depth, "block_size": context},
        "train": {"batch_size": batch_tokens // context, "weight_decay": decay},
    }
    times = f"{epochs:.1f} times" if text_bytes else "at most once"
    return Choice(
        settings,
        (
            f"{depth} layers, {HEAD_SIZE * depth} wide: the size that learns most from {compute:.1e} FLOPs",
            f"{f'vocabulary of {vocabulary:,}' if vocabulary else 'characters'}: the text is read {times}",
            f"batches of {batch_tokens:,} tokens, about {steps:,.0f} steps, weight decay {decay:g}",
        ),
    )


def _vocabulary(depth: int, compute: float, text_bytes: int | None) -> int:
    """The largest vocabulary that the model learns without repeating the text too often, else characters."""
    if _epochs(depth, 0, compute, text_bytes) >= CHARACTER_EPOCHS:
        return 0
    largest = VOCABULARY_FACTOR * (HEAD_SIZE * depth) ** VOCABULARY_EXPONENT
    sizes = (size for size in BYTES_PER_TOKEN if 0 < size <= largest)
    return max((size for size in sizes if _epochs(depth, size, compute, text_bytes) <= MAX_EPOCHS), default=0)


def _epochs(depth: int, vocabulary: int, compute: float, text_bytes: int | None) -> float:
    """How often the text is read; 0 if its size is unknown."""
    if not text_bytes:
        return 0.0
    bytes_per_token = BYTES_PER_TOKEN[max(size for size in BYTES_PER_TOKEN if size <= vocabulary)]
    return _tokens(depth, vocabulary, compute) * bytes_per_token / text_bytes


def _tokens(depth: int, vocabulary: int, compute: float) -> float:
    model = ModelConfig(
        vocab_size=vocabulary or CHARACTERS,
        n_layer=depth,
        n_head=depth,
        n_embd=HEAD_SIZE * depth,
        block_size=LONG_CONTEXT,
    )
    return compute / training_flops_per_token(model)
