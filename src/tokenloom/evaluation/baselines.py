"""Baselines on the same text: a uniform distribution, a unigram model, and compressors."""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from tokenloom.data.token_reader import TokenReader
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import DataError
from tokenloom.run_records import Baselines

# Limits on what is compressed: each compressor takes about 0.6 s per megabyte and runs twice.
MAX_TRAIN_BYTES = 8 << 20
MAX_VAL_BYTES = 1 << 20
# Tokens counted at a time, so that the text may be larger than memory.
CHUNK_TOKENS = 1 << 22


def baselines(
    train: TokenReader | None,
    text: TokenReader,
    tokenizer: Tokenizer,
    *,
    compress: bool = True,
) -> Baselines:
    """The baselines on the tokens `text`, given the training tokens `train` if there are any.

    - `uniform_nats_per_token`: log(vocab_size), the loss if every token is equally likely.
    - `unigram_nats_per_token`, `unigram_bits_per_byte`: the entropy of the text's own token frequencies, a lower bound
      for unigram models. Bytes are those of the whole text, `val_bytes`.
    - `xz_bits_per_byte`, `zstd_bits_per_byte`: 8 · (compressed size of training text and text together, minus that of
      the training text) / bytes of the text, with xz -9e and zstd -19 with a 128 MB window. The last 8 MB of the
      training text (`compressed_train_bytes`) and the first 1 MB of the text (`compressed_val_bytes`) are used. Like
      the model, the compressors have to encode where documents end, and the separators between them do not count as
      bytes of the text (`compressed_text_bytes`). All five are None without `compress`, which takes seconds.

    Raises `DataError` for an empty text and for tokens outside the tokenizer's vocabulary.
    """
    if not len(text):
        raise DataError("the text is empty, so it has no baselines. Use a longer text.")
    counts = _count(text, tokenizer.vocab_size)
    val_bytes = int((counts * tokenizer.byte_lengths).sum())
    nats = _entropy(counts)
    counted = Baselines(
        uniform_nats_per_token=math.log(tokenizer.vocab_size),
        unigram_nats_per_token=nats,
        unigram_bits_per_byte=nats * len(text) / math.log(2) / val_bytes if val_bytes else None,
        val_bytes=val_bytes,
    )
    if not compress:
        return counted
    first = _first_tokens(text, tokenizer)
    return _add_compressors(
        counted,
        _last_bytes(train, tokenizer),
        tokenizer.decode_bytes(first),
        text_bytes=int(tokenizer.byte_lengths[first].sum()),
    )


def _entropy(counts: np.ndarray) -> float:
    """Nats per token of a text under its own token frequencies."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _last_bytes(tokens: TokenReader | None, tokenizer: Tokenizer) -> bytes:
    if tokens is None:
        return b""
    count = min(len(tokens), MAX_TRAIN_BYTES)  # a token has at least one byte
    return tokenizer.decode_bytes(tokens.read(len(tokens) - count, count))[-MAX_TRAIN_BYTES:]


def _first_tokens(tokens: TokenReader, tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of the first `MAX_VAL_BYTES` bytes of a text, separators included."""
    ids = tokens.read(0, min(len(tokens), MAX_VAL_BYTES)).astype(np.int64)
    lengths = np.array([len(token) for token in tokenizer.token_bytes], dtype=np.int64)
    return ids[lengths[ids].cumsum() <= MAX_VAL_BYTES]


def _count(tokens: TokenReader, vocab_size: int) -> np.ndarray:
    """How often each token occurs: (vocab_size,) int64."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens.read(start, min(CHUNK_TOKENS, len(tokens) - start))
        if chunk.max() >= vocab_size:
            raise DataError(
                f"token {chunk.max()} of the text is outside the tokenizer's vocabulary, 0 to {vocab_size - 1}. "
                "Encode the text with the same tokenizer."
            )
        counts += np.bincount(chunk.astype(np.int64), minlength=vocab_size)
    return counts


def _add_compressors(counted: Baselines, train: bytes, val: bytes, text_bytes: int) -> Baselines:
    if not text_bytes:
        return counted
    compressors: tuple[Callable[[bytes], int], ...] = (_xz_size, _zstd_size)
    with ThreadPoolExecutor() as pool:  # both release the GIL
        sizes = [[pool.submit(size, text) for text in (train + val, train)] for size in compressors]
        xz, zstd = (8 * (both.result() - alone.result()) / text_bytes for both, alone in sizes)
    return replace(
        counted,
        xz_bits_per_byte=xz,
        zstd_bits_per_byte=zstd,
        compressed_train_bytes=len(train),
        compressed_val_bytes=len(val),
        compressed_text_bytes=text_bytes,
    )


def _xz_size(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def _zstd_size(text: bytes) -> int:
    import zstandard

    from_level = zstandard.ZstdCompressionParameters.from_level  # pyright: ignore  # its **kwargs are not annotated
    parameters = from_level(19, window_log=27, enable_ldm=True)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(text))
