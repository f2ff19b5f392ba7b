"""The choice of a token for every running sequence from its logits, with the log-probability of the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tokenloom.errors import SequenceError
from tokenloom.generation.logprobs import TokenLogprobs, token_logprobs
from tokenloom.generation.sampling import has_finite_maximum
from tokenloom.generation.sequence import TokenSequence
from tokenloom.sampling_params import SamplingParams


class Sampler(Protocol):
    """Chooses the next token of each row: logits (B, V) -> (B,). The default is `sample_tokens`."""

    def __call__(
        self, logits: Tensor, sampling: Sequence[SamplingParams], generators: Sequence[torch.Generator], /
    ) -> Tensor: ...


def choose_tokens(
    logits: Tensor, sequences: Sequence[TokenSequence], vocab_size: int, sampler: Sampler
) -> tuple[list[int], list[TokenLogprobs | None]]:
    """A token for each row of logits (B, V), and its log-probabilities if the sequence requested them.

    Ids from `vocab_size` are never chosen. Raises `SequenceError` for the first row whose logits are not finite, before
    any token is chosen.
    """
    known = logits[:, :vocab_size].float()  # on a CPU, maxima of bf16 take several times as long
    _refuse_infinite(known, sequences)
    tokens: list[int] = sampler(  # pyright: ignore  # torch annotates the result as a plain list
        _penalized(known, sequences), [one.sampling for one in sequences], [one.generator for one in sequences]
    ).tolist()
    return tokens, _requested_logprobs(logits, tokens, sequences, vocab_size)


def _refuse_infinite(logits: Tensor, sequences: Sequence[TokenSequence]) -> None:
    """Refuse logits from which no token can be sampled; on a GPU, `multinomial` would end the process."""
    valid = has_finite_maximum(logits)
    if not valid.all():
        row = int(valid.int().argmin())
        kind = "NaN" if logits[row].isnan().any() else "infinite"
        raise SequenceError(
            f"the logits of new token {sequences[row].generated + 1:,} are {kind}: the model's weights are corrupt, or "
            "its training diverged. Use an earlier checkpoint.",
            sequences[row].row,
        )


def _penalized(logits: Tensor, sequences: Sequence[TokenSequence]) -> Tensor:
    """Logits (B, V) after the bias and the penalties of each sequence, in another tensor if there are any."""
    if all(sequence.penalties is None for sequence in sequences):
        return logits
    rows = zip(logits.float(), sequences, strict=True)
    return torch.stack([row if one.penalties is None else one.penalties.apply(row) for row, one in rows])


def _requested_logprobs(
    logits: Tensor, tokens: list[int], sequences: Sequence[TokenSequence], vocab_size: int
) -> list[TokenLogprobs | None]:
    logprobs: list[TokenLogprobs | None] = [None] * len(tokens)
    top = {row: one.top_logprobs for row, one in enumerate(sequences) if one.top_logprobs is not None}
    if top:
        chosen = [tokens[row] for row in top]
        for row, found in zip(top, token_logprobs(logits[list(top)], chosen, [*top.values()], vocab_size), strict=True):
            logprobs[row] = found
    return logprobs
