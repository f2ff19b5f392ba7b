"""The rule of a time budget: shape, vocabulary, context, batch and weight decay for a text, a machine and a time.

A pure function of a few numbers and of the settings that are fixed. Decision 14 has the measurements.

| constant | source |
|---|---|
| FLOPS_PER_SQUARED_WEIGHT | docstrings in 2 minutes: 20 better than 33 by 0.02 bits per byte |
| VOCABULARY_FACTOR | docstrings in 2 minutes, 192 wide: 2,048 tokens better than 1,024 by 0.03 to 0.05 |
| CHARACTER_EPOCHS | docstrings in 2 minutes: characters, read 1.3 times, worse than 2,048 tokens by 0.25 |
| SHORT_CONTEXT, MIN_BATCH_TOKENS | docstrings in 2 minutes: 8 × 128 tokens better than 8 × 256 by 0.014 |
| STEPS | tinyshakespeare in 290 seconds: about 1,360 steps better than 2,150 with half the batch by 0.004 to 0.02 |
| STRENGTH_EXPONENT, MAX_DECAY, MAX_EPOCHS | 18 kB of Shakespeare, characters: 5 to 82 epochs, weight decay 1 to 10 |
| BYTES_PER_TOKEN | counted on English text and docstrings |
| the others | estimates, which the series of benchmarks/recipe.py measure |

Each is from one or two runs, and runs of one setting differ by up to 0.02 bits per byte: the small differences are weak
evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tokenloom.config import Config, ModelConfig, Settings, TrainConfig
from tokenloom.model.flops import training_flops_per_token
from tokenloom.reporting.formatting import counted, percent
from tokenloom.training.shape import PARTS, whole_shape

MIN_SECONDS = 1.0  # if the budget is already used up; training then makes one step, or refuses it
TRAINING_SHARE = 0.85  # of the time is spent in training steps; the rest in start, evaluations and saving
# Size: FLOPs = 20 · weights². At 6 FLOPs for each weight and token, this is about three tokens for each weight of the
# blocks. Hoffmann et al. 2022 found 20 tokens, 120 · weights², best for large models and fresh text.
FLOPS_PER_SQUARED_WEIGHT = 20.0
WEIGHTS_PER_BYTE = 20.0  # of the training text, at most: a larger model memorizes it sooner
# Characters are chosen if there is time to read the text so often. Learned tokens learn faster, and use it up faster.
CHARACTER_EPOCHS = 4.0
VOCABULARY_EPOCHS = 8.0  # with a learned vocabulary, the text is not read more often
MAX_EPOCHS = 50.0  # more do not lower the validation loss: training ends before the time
# The largest vocabulary that a model of a width learns: factor · width ** exponent.
VOCABULARY_FACTOR, VOCABULARY_EXPONENT = 0.9, 1.49
# The context is long if training reads so many tokens.
SHORT_CONTEXT, LONG_CONTEXT, LONG_CONTEXT_TOKENS = 128, 256, 3e6
# The batch is that for about so many steps.
STEPS, MIN_BATCH_TOKENS = 1500, 1024
# Weight decay · learning rate · steps is at least 2.5, and at least epochs ** 1.3.
MIN_STRENGTH, STRENGTH_EXPONENT = 2.5, 1.3
MAX_FRESH_DECAY, MAX_DECAY = 1.0, 10.0  # the first of these gives no weight decay above 1, and both none above 10
# So many windows of a context fit at least into the training and the validation text.
TRAINING_WINDOWS, VALIDATION_WINDOWS = 8, 2
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
class Situation:
    """What the rule chooses for."""

    seconds: float
    flops_per_second: float
    """That training steps reach on this machine."""
    text_bytes: int | None = None
    """Of the training text; None if unknown, which counts as large."""
    vocabulary: int | None = None
    """Tokens of a vocabulary that is fixed, 0 for characters; None if the rule chooses it."""
    processes: int = 1


@dataclass(frozen=True)
class Choice:
    """Settings, and the reasons for them, a line each."""

    settings: Settings
    reasons: tuple[str, ...]


def choose(situation: Situation, config: Config, fixed: Collection[str] = ()) -> Choice:
    """Settings for the situation. Those in `fixed`, such as "n_embd", keep their values in `config`.

    What the rule does not choose, such as the learning rates, is read from `config` as well.
    """
    compute = TRAINING_SHARE * max(situation.seconds, MIN_SECONDS) * situation.flops_per_second
    reading = _Reading(compute, situation.text_bytes)
    weights = math.sqrt(compute / FLOPS_PER_SQUARED_WEIGHT)
    most_weights = math.inf if situation.text_bytes is None else WEIGHTS_PER_BYTE * situation.text_bytes
    model = _model(config.model, fixed, min(weights, most_weights))
    vocabulary = _vocabulary(model, reading) if situation.vocabulary is None else situation.vocabulary
    model = _with_vocabulary(model, vocabulary)
    if "block_size" not in fixed:
        model = model.model_copy(update={"block_size": _context(model, reading, config.data.val_fraction)})
    train = _training(model, reading, situation.processes, config.train, fixed)
    tokenizer = None
    if situation.vocabulary is None:
        tokenizer = f"bpe:{vocabulary}" if vocabulary else "char"
    sections: Mapping[str, Mapping[str, object]] = {
        "data": {} if tokenizer is None else {"tokenizer": tokenizer},
        "model": {name: getattr(model, name) for name in (*sorted(PARTS), "block_size")},
        "train": {name: getattr(train, name) for name in ("batch_size", "weight_decay")},
    }
    if reading.epochs(model) > MAX_EPOCHS:
        sections = {**sections, "train": {**sections["train"], "max_steps": train.max_steps}}
    settings = {
        section: {name: value for name, value in values.items() if name not in fixed}
        for section, values in sections.items()
    }
    reasons = {
        "size": _reason_of_size(model, fixed, is_text_short=weights > most_weights),
        "tokens": _reason_of_tokens(tokenizer, model, train, reading, fixed),
        "training": f"about {counted(train.max_steps, 'step')} of {train.batch_size} × {model.block_size} tokens, "
        f"weight decay {train.weight_decay:g}",
    }
    return Choice(settings, tuple(f"{name:<9} {text}" for name, text in reasons.items()))


def nearest_multiple(number: float, unit: int) -> int:
    """The multiple of `unit`, at least `unit` itself, that is nearest to `number`."""
    return unit * max(1, round(number / unit))


@dataclass(frozen=True)
class _Reading:
    """How much of a text models are trained on with a number of FLOPs."""

    compute: float
    text_bytes: int | None

    def tokens(self, model: ModelConfig) -> float:
        return self.compute / training_flops_per_token(model)

    def text_tokens(self, model: ModelConfig) -> float:
        """Infinite if the size of the text is unknown."""
        bytes_per_token = BYTES_PER_TOKEN[max(size for size in BYTES_PER_TOKEN if size <= model.vocabulary)]
        return math.inf if self.text_bytes is None else max(1, self.text_bytes) / bytes_per_token

    def epochs(self, model: ModelConfig) -> float:
        """How often the text is read; 0 if its size is unknown."""
        return self.tokens(model) / self.text_tokens(model)


def _model(model: ModelConfig, fixed: Collection[str], weights: float) -> ModelConfig:
    """`model` with a shape of so many weights; its context is `LONG_CONTEXT` unless fixed."""
    context = model.block_size if "block_size" in fixed else LONG_CONTEXT
    return model.model_copy(update={**whole_shape(model, fixed, weights), "block_size": context})


def _with_vocabulary(model: ModelConfig, vocabulary: int) -> ModelConfig:
    return model.model_copy(update={"vocab_size": vocabulary or CHARACTERS})


def _vocabulary(model: ModelConfig, reading: _Reading) -> int:
    """The largest vocabulary that the model learns without repeating the text too often, else 0 for characters."""
    if reading.epochs(_with_vocabulary(model, 0)) >= CHARACTER_EPOCHS:
        return 0
    largest = VOCABULARY_FACTOR * model.n_embd**VOCABULARY_EXPONENT
    sizes = (size for size in BYTES_PER_TOKEN if 0 < size <= largest)
    return max(
        (size for size in sizes if reading.epochs(_with_vocabulary(model, size)) <= VOCABULARY_EPOCHS), default=0
    )


def _context(model: ModelConfig, reading: _Reading, val_fraction: float) -> int:
    """The context in tokens; shorter if the training or validation text is short."""
    text_tokens = reading.text_tokens(model)
    tokens = min(reading.tokens(model), MAX_EPOCHS * text_tokens)
    context = LONG_CONTEXT if tokens >= LONG_CONTEXT_TOKENS else SHORT_CONTEXT
    validation = text_tokens * val_fraction / (1 - val_fraction)
    most = min(text_tokens / TRAINING_WINDOWS, validation / VALIDATION_WINDOWS if val_fraction else math.inf)
    return 2 ** int(math.log2(min(context, max(1, most))))


def _training(
    model: ModelConfig, reading: _Reading, processes: int, train: TrainConfig, fixed: Collection[str]
) -> TrainConfig:
    """`train` with batch size, weight decay, and the number of steps that fit."""
    tokens = reading.tokens(model)
    text_tokens = reading.text_tokens(model)
    if "max_steps" not in fixed:
        tokens = min(tokens, MAX_EPOCHS * text_tokens)
    batch_size = train.batch_size
    if "batch_size" not in fixed:
        batch_tokens = min(max(MIN_BATCH_TOKENS, 2 ** round(math.log2(tokens / STEPS))), text_tokens / 2)
        unit = math.lcm(processes, train.micro_batch_size or 1)
        batch_size = nearest_multiple(batch_tokens / model.block_size, unit)
    steps = max(1, round(tokens / (batch_size * model.block_size)))
    if "max_steps" in fixed:
        steps = min(steps, train.max_steps)
    epochs = steps * batch_size * model.block_size / text_tokens
    rate = train.muon_learning_rate if train.optimizer == "muon" else train.learning_rate
    fresh = min(MAX_FRESH_DECAY, MIN_STRENGTH / (rate * steps))
    decay = round(min(MAX_DECAY, max(fresh, epochs**STRENGTH_EXPONENT / (rate * steps))), 3)
    values = {"batch_size": batch_size, "weight_decay": decay}
    values = {name: value for name, value in values.items() if name not in fixed}
    return train.model_copy(update={**values, "max_steps": steps})


def _reason_of_size(model: ModelConfig, fixed: Collection[str], *, is_text_short: bool) -> str:
    reason = "the size for this machine and time"
    if not PARTS.isdisjoint(fixed):
        reason = "the shape is set in part, and the rest fits it"
    elif is_text_short:
        reason = "the largest size for this text, which a larger model would memorize"
    return f"{counted(model.n_layer, 'layer')}, {model.n_embd} wide: {reason}"


def _reason_of_tokens(
    tokenizer: str | None, model: ModelConfig, train: TrainConfig, reading: _Reading, fixed: Collection[str]
) -> str:
    """`tokenizer` is None if the rule does not choose it."""
    epochs = train.max_steps * train.batch_size * model.block_size / reading.text_tokens(model)
    times = f"the text is read about {epochs:.1f} times"
    if reading.text_bytes is None:
        times = "the size of the text is unknown"
    elif epochs < 1:
        times = f"about {percent(epochs)} of the text is read"
    elif reading.epochs(model) > MAX_EPOCHS and "max_steps" not in fixed:
        times = f"the text is read {epochs:.0f} times, then training ends: more would not help"
    names = {None: "the tokenizer is set", "char": "characters"}
    return f"{names.get(tokenizer, f'{tokenizer}, learned from the text')}; {times}"
