"""The next token of a text: probabilities before and after each sampling parameter, and which of them excludes a token.

Source: the book, section 5.1.2, from logits to probabilities, and section 5.3 for temperature and top-k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import torch

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.evaluation.loss import evaluating
from tokenloom.generation.sampling import probabilities
from tokenloom.model.language_model import LanguageModel
from tokenloom.sampling_params import SamplingParams

# The parameters that exclude tokens, in the order in which they are applied.
_EXCLUDING = ("top_k", "top_p", "min_p")
_OFF = SamplingParams(temperature=1.0)


@dataclass(frozen=True)
class NextToken:
    """A token that can come next."""

    id: int
    text: str
    bytes: str
    """In hexadecimal."""
    logit: float
    log_probability: float
    """In nats, before the sampling parameters."""
    probability: float
    """Before the sampling parameters."""
    sampled_probability: float
    """After all of them."""
    excluded_by: str | None
    """The first sampling parameter with which the token cannot be chosen."""


@dataclass(frozen=True)
class NextTokens:
    """What can come after a text."""

    context: Sequence[int]
    """The ids of the text, as far as they fit into the model's context."""
    entropy: float
    """Of the probabilities before the sampling parameters, in nats."""
    choices: int
    """How many tokens can be chosen with the sampling parameters."""
    tokens: Sequence[NextToken]
    """The most likely ones, in descending order."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def next_tokens(
    model: LanguageModel, tokenizer: Tokenizer, text: str, sampling: SamplingParams, top: int = 50
) -> NextTokens:
    """The `top` most likely tokens after a text, which is empty for the start of a new one.

    The probabilities are those from which `generate_text` samples the first token. Raises `UsageError` for a `top`
    below 1, and for a repetition penalty, which depends on all earlier tokens.
    """
    if top < 1:
        raise UsageError(f"top must be at least 1, got {top}. Try 50.")
    if sampling.repetition_penalty != 1:
        raise UsageError("the probabilities of the next token have no repetition penalty. Omit it.")
    ids = (tokenizer.encode(text) or [tokenizer.eot_id])[-model.config.block_size :]
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model.modules()):
        logits = model(torch.tensor([ids], device=device))[:, -1].float()  # (1, V)
        log_probs = logits.log_softmax(dim=-1)[0]
        # Ids that only pad the model's vocabulary are never sampled.
        candidates = logits[:, : tokenizer.vocab_size]
        stages = {name: probabilities(candidates, params)[0] for name, params in _stages(sampling)}
    sampled = list(stages.values())[-1]
    order: list[int] = candidates[0].topk(min(top, tokenizer.vocab_size)).indices.tolist()  # pyright: ignore  # torch annotates it as a plain list
    finite = log_probs[log_probs.isfinite()]
    return NextTokens(
        context=ids,
        entropy=-float((finite.exp() * finite).sum()),
        choices=int((sampled > 0).sum()),
        tokens=[
            NextToken(
                id=token,
                text=tokenizer.token_bytes[token].decode("utf-8", "replace"),
                bytes=tokenizer.token_bytes[token].hex(),
                logit=float(candidates[0, token]),
                log_probability=float(log_probs[token]),
                probability=math.exp(log_probs[token]),
                sampled_probability=float(sampled[token]),
                excluded_by=next((name for name, probs in stages.items() if name and probs[token] == 0), None),
            )
            for token in order
        ],
    )


def _stages(sampling: SamplingParams) -> list[tuple[str, SamplingParams]]:
    """The parameters up to and including each of those that exclude tokens, under its name."""
    params = replace(_OFF, temperature=sampling.temperature)
    stages = [("temperature" if sampling.is_greedy else "", params)]
    assert set(_EXCLUDING) <= {field.name for field in fields(SamplingParams)}
    for name in _EXCLUDING:
        value = getattr(sampling, name)
        if value is not None and not sampling.is_greedy:
            params = replace(params, **{name: value})
            stages.append((name, params))
    return stages
