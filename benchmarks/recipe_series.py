"""The series of benchmarks/recipe.py: a text and a time each, with variants as options of `tokenloom train`.

The time is that of one core. "120s" and "300s" in the name of a series are its seconds. The older series, "1m" to "5m",
have twice the time of their names or a little less, which is what two cores do in that time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """A text and a time, with the variants to compare."""

    source: str
    """A corpus, or a text of benchmarks/texts.py."""
    seconds: int
    """The budget of a run, which has one core."""
    variants: Mapping[str, str]


RULE = "rule"
"""The variant that sets nothing."""


def shape(depth: int, batch: int, context: int, tokenizer: str, decay: float, *more: str) -> str:
    sizes = f"--model.n-layer {depth} --model.n-head {depth} --model.n-embd {64 * depth} --model.block-size {context}"
    training = f"--train.batch-size {batch} --train.weight-decay {decay}"
    return " ".join([sizes, training, f"--tokenizer {tokenizer}", *more])


def settings(depth: int, batch: int, context: int, tokenizer: str, decay: float) -> dict[str, str]:
    """Weight decay, rates and beta2 around a base. The beta2 is 0.95 ** (tokens of a batch / 4096)."""

    def base(factor: float = 1.0, *more: str) -> str:
        return shape(depth, batch, context, tokenizer, round(factor * decay, 3), *more)

    beta2 = round(0.95 ** (batch * context / 4096), 4)
    return {
        "base": base(),
        "decay x0.5": base(0.5),
        "decay x2": base(2),
        "decay x4": base(4),
        f"beta2 {beta2}": base(1, f"--train.beta2 {beta2}"),
        "muon rate x0.5": base(1, "--train.muon-learning-rate 0.01"),
        "muon rate x2": base(1, "--train.muon-learning-rate 0.04"),
        "adamw rate x0.5": base(1, "--train.learning-rate 0.005"),
        "adamw rate x2": base(1, "--train.learning-rate 0.02"),
    }


DOCSTRINGS = {
    RULE: "",
    "3x192 bpe2048 b8x256": shape(3, 8, 256, "bpe:2048", 0.1),
    "3x192 bpe1024 b8x256": shape(3, 8, 256, "bpe:1024", 0.1),
    "3x192 bpe2048 b8x128": shape(3, 8, 128, "bpe:2048", 0.1),
    "3x192 bpe4096 b8x128": shape(3, 8, 128, "bpe:4096", 0.1),
    "3x192 char b8x256": shape(3, 8, 256, "char", 0.1),
    "4x256 bpe2048 b8x128": shape(4, 8, 128, "bpe:2048", 0.1),
    "2x128 bpe1024 b8x128": shape(2, 8, 128, "bpe:1024", 0.1),
}
CHARACTERS = {
    RULE: "",
    "4x256 b16 wd.3": shape(4, 16, 256, "char", 0.3),
    "4x256 b8 wd.2": shape(4, 8, 256, "char", 0.2),
    "4x256 b8 wd.4": shape(4, 8, 256, "char", 0.4),
    "5x320 b8 wd.2": shape(5, 8, 256, "char", 0.2),
    "3x192 b8 wd.2": shape(3, 8, 256, "char", 0.2),
    "3x192 b8 wd.4": shape(3, 8, 256, "char", 0.4),
    "4x256 b16 wd.3 lr.005": shape(4, 16, 256, "char", 0.3, "--train.learning-rate 0.005"),
    "4x256 b16 wd.3 beta.9": shape(4, 16, 256, "char", 0.3, "--train.beta1 0.9 --train.beta2 0.98"),
}
UNSEEN = {
    RULE: "",
    "preset modern-xs": "--preset modern-xs",
    "2x128 bpe1024": shape(2, 8, 128, "bpe:1024", 0.1),
    "3x192 bpe2048": shape(3, 8, 128, "bpe:2048", 0.1),
    "3x192 bpe4096": shape(3, 8, 128, "bpe:4096", 0.1),
    "4x256 bpe2048": shape(4, 8, 128, "bpe:2048", 0.1),
    "4x256 bpe4096": shape(4, 8, 128, "bpe:4096", 0.1),
    "3x192 char": shape(3, 8, 256, "char", 0.1),
}
TINY = {
    RULE: "",
    "2x128 char wd1": shape(2, 8, 128, "char", 1.0),
    "2x128 char wd4": shape(2, 8, 128, "char", 4.0),
    "2x128 char wd8": shape(2, 8, 128, "char", 8.0),
    "2x128 char wd16": shape(2, 8, 128, "char", 16.0),
    "3x192 char wd8": shape(3, 8, 128, "char", 8.0),
}
SERIES = {
    "docstrings-2m": Series("python-docs", 240, DOCSTRINGS),
    "docstrings-5m": Series("python-docs", 600, DOCSTRINGS),
    "shakespeare-2m": Series("tinyshakespeare", 240, CHARACTERS),
    "shakespeare-5m": Series("tinyshakespeare", 580, CHARACTERS),
    "bible-120s": Series("bible-kjv", 120, UNSEEN),
    "django-120s": Series("django-docs", 120, UNSEEN),
    "bible-300s": Series("bible-kjv", 300, UNSEEN),
    "django-300s": Series("django-docs", 300, UNSEEN),
    "settings-docstrings-2m": Series("python-docs", 240, settings(3, 8, 128, "bpe:2048", 0.18)),
    "settings-shakespeare-2m": Series("tinyshakespeare", 240, settings(3, 8, 256, "char", 0.4)),
    "verdict-1m": Series("the-verdict", 120, TINY),
}
GROUPS = {
    "unseen": ("bible-120s", "django-120s", "bible-300s", "django-300s"),
    "settings": ("settings-docstrings-2m", "settings-shakespeare-2m"),
}
