"""Text, token ids and batches, as the book makes them."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tokenloom.data.tokenizers.bpe import GPT2_PATTERN, gpt2_tokenizer
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT
from tokenloom.errors import DataError, UsageError

if TYPE_CHECKING:
    import tiktoken


class BookTokenizer(Protocol):
    """A `tiktoken.Encoding` or one of Tokenloom's tokenizers."""

    def encode(self, text: str, /) -> list[int]: ...
    def decode(self, ids: list[int], /) -> str: ...


class BatchLoader(Protocol):
    """Batches of (inputs, targets): a `DataLoader` or a list."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


def get_encoding(name: str = "gpt2") -> tiktoken.Encoding:
    """The GPT-2 encoding, equal to `tiktoken.get_encoding("gpt2")` but built without a download.

    Raises `UsageError` for any other name.
    """
    import tiktoken

    if name != "gpt2":
        raise UsageError(f'unsupported encoding "{name}"; the book uses "gpt2". For others, use tiktoken.get_encoding.')
    tokenizer = gpt2_tokenizer()
    ranks = {token: rank for rank, token in enumerate(tokenizer.token_bytes[: tokenizer.eot_id])}
    specials = {ENDOFTEXT: tokenizer.eot_id}
    return tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def text_to_token_ids(text: str, tokenizer: BookTokenizer) -> Tensor:
    """The token ids of a text as a batch of one, (1, T); "<|endoftext|>" is a single token (section 5.1.1)."""
    import tiktoken

    if isinstance(tokenizer, tiktoken.Encoding):
        ids = tokenizer.encode(text, allowed_special={ENDOFTEXT})
    else:
        ids = tokenizer.encode(text)
    return torch.tensor(ids).unsqueeze(0)  # (1, T)


def token_ids_to_text(token_ids: Tensor, tokenizer: BookTokenizer) -> str:
    """The text of token ids (1, T) (section 5.1.1)."""
    return tokenizer.decode(token_ids.squeeze(0).tolist())


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of (inputs, targets), each (B, max_length), from windows that start every `stride` tokens (section 2.6).

    Targets are the inputs shifted by one token. "<|endoftext|>" in `txt` is a single token. Raises `DataError` if the
    text is too short for one window.
    """
    ids = torch.from_numpy(gpt2_tokenizer().encode_array(txt).astype(np.int64))
    if len(ids) <= max_length:
        raise DataError(
            f"the text has {len(ids):,} tokens, too few for one window of {max_length:,} tokens and its targets. "
            "Use a longer text or a smaller max_length."
        )
    windows = [ids[start : start + max_length + 1] for start in range(0, len(ids) - max_length, stride)]
    pairs = torch.stack(windows)  # (windows, max_length + 1)
    dataset = TensorDataset(pairs[:, :-1].clone(), pairs[:, 1:].clone())
    # The book's results depend on the order in which DataLoader shuffles, drawn from torch's default generator.
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers)
