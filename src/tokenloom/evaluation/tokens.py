"""What a model saw at each token of a text: how likely it was, what was likelier, and how undecided the model was."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import UsageError
from tokenloom.evaluation.loss import LossModel, evaluating, windows
from tokenloom.model.head import IGNORE_INDEX


class LogitsModel(LossModel, Protocol):
    """A model that can be asked for its logits (B, T, V) of ids (B, T)."""

    def __call__(self, ids: Tensor) -> Tensor: ...


def inspect_tokens(
    model: LogitsModel,
    ids: np.ndarray,
    tokenizer: Tokenizer,
    *,
    top: int = 10,
    context: int | None = None,
    stride: int | None = None,
) -> dict[str, Any]:
    """Every token of ids (n,) but the first, scored in the windows of `measure`; one window's logits at a time.

    `context` is the model's block size and `stride` the context if not given. Raises `UsageError` and `DataError` as
    `measure` does, and `UsageError` for a `top` below 0.
    """
    if top < 0:
        raise UsageError(f"top must be 0 or more, got {top}. Try 10.")
    context = context or min(model.config.block_size, max(1, len(ids) - 1))
    stride = stride or context
    device = next(model.parameters()).device
    seen: list[dict[str, Any]] = []
    with torch.no_grad(), evaluating(model.modules()):
        for window, targets in windows(ids, model.config, context, stride):
            scored = targets[0] != IGNORE_INDEX
            logits = model(torch.from_numpy(window).to(device))[0, torch.from_numpy(scored).to(device)]  # (scored, V)
            seen += _seen(logits.float(), torch.from_numpy(targets[0, scored]).to(device), tokenizer, top)
    # Summed in double: many small terms.
    nats = math.fsum(-token["log_probability"] for token in seen)
    scored_bytes = int(tokenizer.byte_lengths[ids[1:].astype(np.int64)].sum())
    return {
        "nats": nats,
        "loss": nats / len(seen),
        "perplexity": math.exp(min(nats / len(seen), 700)),
        "bits_per_byte": nats / math.log(2) / scored_bytes if scored_bytes else None,
        "scored_tokens": len(seen),
        "scored_bytes": scored_bytes,
        "context": context,
        "stride": stride,
        "first": _token(int(ids[0]), tokenizer),
        "tokens": seen,
    }


def _seen(logits: Tensor, targets: Tensor, tokenizer: Tokenizer, top: int) -> list[dict[str, Any]]:
    """What logits (N, V) say of targets (N,)."""
    logs = logits.log_softmax(dim=-1)
    own = logs.gather(-1, targets[:, None])  # (N, 1)
    ranks = (logs > own).sum(dim=-1) + 1
    # A token that is out, with the logit -inf, adds nothing: 0 · -inf would be no number.
    entropies = -torch.where(logs.isinf(), 0.0, logs.exp() * logs).sum(dim=-1)
    likeliest = logs.topk(min(top, logs.shape[-1]), dim=-1)
    rows = zip(
        targets.tolist(),
        own[:, 0].double().tolist(),
        ranks.tolist(),
        entropies.tolist(),
        likeliest.indices.tolist(),
        likeliest.values.tolist(),
        strict=True,
    )
    return [
        {
            **_token(token, tokenizer),
            "log_probability": log,
            "probability": math.exp(log),
            "rank": rank,
            "entropy": entropy,
            "top": [
                {**_token(other, tokenizer), "probability": math.exp(value)}
                for other, value in zip(others, values, strict=True)
            ],
        }
        for token, log, rank, entropy, others, values in rows
    ]


def _token(token: int, tokenizer: Tokenizer) -> dict[str, Any]:
    # A padded vocabulary has ids that stand for nothing.
    content = tokenizer.token_bytes[token] if token < tokenizer.vocab_size else b""
    return {"id": token, "text": content.decode("utf-8", "replace"), "bytes": content.hex()}
