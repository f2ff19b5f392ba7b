"""The toy vocabulary on which section 5.3 explains temperature and top-k sampling."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TOY_VOCABULARY = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
TOY_LOGITS = (4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79)  # of the next token


def softmax_with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities of logits (..., V) divided by `temperature` (section 5.3.1)."""
    return torch.softmax(logits / temperature, dim=-1)


def sample_counts(probas: Tensor, draws: int = 1000) -> list[int]:
    """How often each token is sampled in `draws` draws from probabilities (V,), with seed 123 (section 5.3.1)."""
    torch.manual_seed(123)
    samples = torch.stack([torch.multinomial(probas, num_samples=1) for _ in range(draws)])
    return torch.bincount(samples.flatten(), minlength=len(probas)).tolist()


def print_sampled_tokens(probas: Tensor, vocabulary: Sequence[str] = TOY_VOCABULARY) -> None:
    """Print how often each word is sampled in 1,000 draws (section 5.3.1)."""
    for count, word in zip(sample_counts(probas), vocabulary, strict=True):
        print(f"{count} x {word}")
