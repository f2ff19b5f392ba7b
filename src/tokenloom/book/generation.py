"""Text generation as in sections 4.7 and 5.3."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tokenloom.book.data import BookTokenizer, text_to_token_ids, token_ids_to_text
from tokenloom.evaluation.loss import evaluating
from tokenloom.generation.engine import Engine
from tokenloom.generation.sampling import sample_tokens
from tokenloom.model.gpt2 import GPT2
from tokenloom.sampling_params import SamplingParams


def generate_text_simple(model: GPT2, idx: Tensor, max_new_tokens: int, context_size: int) -> Tensor:
    """Greedy continuation of ids (B, T): (B, T + max_new_tokens) (section 4.7)."""
    return generate(model, idx, max_new_tokens, context_size)


def generate(
    model: GPT2,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
) -> Tensor:
    """Continuation of ids (B, T) by up to `max_new_tokens` tokens, given the last `context_size` (section 5.3.3).

    Each row stops independently before its first `eos_id`; rows that stop early are padded with `eos_id`. Temperature 0
    is greedy decoding; otherwise tokens are sampled with torch's default random number generator.
    """
    sampling = SamplingParams(temperature=temperature, top_k=top_k)
    if context_size < model.config.block_size or (not sampling.is_greedy and len(idx) > 1):
        return _generate_uncached(model, idx, max_new_tokens, context_size, sampling, eos_id)
    engine = Engine(
        model, eot_id=eos_id, max_rows=len(idx), prefill_chunk=None, slide=1, sampler=_sample_with_default_generator
    )
    for prompt in idx.tolist():
        engine.add(prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=0, truncate_prompt=True)
    new_ids: list[list[int]] = [[] for _ in idx]
    for step in engine.run():
        if step.token is not None:
            new_ids[step.row].append(step.token)
    return _append(idx, new_ids, eos_id)


def generate_and_print_sample(
    model: GPT2, tokenizer: BookTokenizer, device: torch.device | str, start_context: str
) -> None:
    """Print a greedy continuation of `start_context` by 50 tokens on one line (section 5.2)."""
    context_size = model.wpe.weight.shape[0]
    ids = text_to_token_ids(start_context, tokenizer).to(device)
    ids = generate_text_simple(model, ids, max_new_tokens=50, context_size=context_size)
    print(token_ids_to_text(ids, tokenizer).replace("\n", " "))


def _sample_with_default_generator(logits: Tensor, sampling: Sequence[SamplingParams], *_: object) -> Tensor:
    return sample_tokens(logits, sampling)


def _generate_uncached(
    model: GPT2, idx: Tensor, max_new_tokens: int, context_size: int, sampling: SamplingParams, eos_id: int | None
) -> Tensor:
    """`generate` without the engine.

    Used for contexts shorter than the model's, and for sampled batches: every row, finished or not, consumes random
    numbers at each step, as in the book.
    """
    new_ids: list[list[int]] = [[] for _ in idx]
    finished = [False] * len(idx)
    ids = idx
    with torch.inference_mode(), evaluating(model.modules()):
        for _ in range(max_new_tokens):
            logits = model(ids[:, -context_size:])[:, -1]  # (B, V)
            next_ids = sample_tokens(logits, sampling)  # (B,)
            ids = torch.cat([ids, next_ids[:, None]], dim=1)  # (B, T + 1)
            for row, token in enumerate(next_ids.tolist()):
                finished[row] = finished[row] or token == eos_id
                if not finished[row]:
                    new_ids[row].append(token)
            if all(finished):
                break
    return _append(idx, new_ids, eos_id)


def _append(idx: Tensor, new_ids: list[list[int]], eos_id: int | None) -> Tensor:
    """Ids (B, T) followed by the new ids of each row, padded to the longest with `eos_id`."""
    longest = max(map(len, new_ids), default=0)
    padded = [row + [eos_id or 0] * (longest - len(row)) for row in new_ids]
    return torch.cat([idx, torch.tensor(padded, dtype=idx.dtype, device=idx.device).view(len(idx), longest)], dim=1)
