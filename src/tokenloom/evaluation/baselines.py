"""What simpler means reach on the same text: guessing, counting tokens, and compressing."""

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

# What the compressors get to see at most: they need about 0.6 s a megabyte each, and run twice.
MAX_TRAIN_BYTES = 8 << 20
MAX_VAL_BYTES = 1 << 20
# Tokens counted at once, so that a text larger than memory can be.
CHUNK_TOKENS = 1 << 22


def baselines(
    train: np.ndarray | TokenReader | None,
    text: np.ndarray | TokenReader,
    tokenizer: Tokenizer,
    *,
    compress: bool = True,
) -> Baselines:
    """What a model has to beat on the tokens `text`, given the tokens `train` if there are any.

    - `uniform_nats_per_token`: every token equally likely, log(vocab_size).
    - `unigram_nats_per_token`, `unigram_bits_per_byte`: the entropy of the text's own token frequencies, what counting
      tokens without looking at their neighbours can reach at best. Bytes are those of the whole text, `val_bytes`.
    - `xz_bits_per_byte`, `zstd_bits_per_byte`: 8 · (size of training text + text, compressed as one, less that of the
      training text) / bytes of text, with xz -9e and zstd -19 with a 128 MB window. They see `compressed_train_bytes`
      (the last 8 MB or so) and `compressed_val_bytes` (the first 1 MB); without `compress`, the quick way, all None.

    Raises `DataError` for an empty text and for tokens outside the tokenizer.
    """
    if not len(text):
        raise DataError("the text is empty, so there is nothing to compare on. Use a longer one.")
    counts = _count(text, tokenizer.vocab_size)
    val_bytes = int((counts * tokenizer.byte_lengths).sum())
    nats = _entropy(counts)
    known = Baselines(
        uniform_nats_per_token=math.log(tokenizer.vocab_size),
        unigram_nats_per_token=nats,
        unigram_bits_per_byte=nats * len(text) / math.log(2) / val_bytes if val_bytes else None,
        val_bytes=val_bytes,
    )
    return _with_compressors(known, _last_bytes(train, tokenizer), _first_bytes(text, tokenizer)) if compress else known


def _entropy(counts: np.ndarray) -> float:
    """Nats per token of a text under its own token frequencies."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _last_bytes(tokens: np.ndarray | TokenReader | None, tokenizer: Tokenizer) -> bytes:
    if tokens is None:
        return b""
    count = min(len(tokens), MAX_TRAIN_BYTES)  # a token stands for a byte or more
    return tokenizer.decode_bytes(_read(tokens, len(tokens) - count, count))[-MAX_TRAIN_BYTES:]


def _first_bytes(tokens: np.ndarray | TokenReader, tokenizer: Tokenizer) -> bytes:
    return tokenizer.decode_bytes(_read(tokens, 0, min(len(tokens), MAX_VAL_BYTES)))[:MAX_VAL_BYTES]


def _read(tokens: np.ndarray | TokenReader, start: int, count: int) -> np.ndarray:
    return tokens[start : start + count] if isinstance(tokens, np.ndarray) else tokens.read(start, count)


def _count(tokens: np.ndarray | TokenReader, vocab_size: int) -> np.ndarray:
    """How often each token occurs: (vocab_size,) int64."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = _read(tokens, start, min(CHUNK_TOKENS, len(tokens) - start))
        if chunk.max() >= vocab_size:
            raise DataError(
                f"the text has the token {chunk.max()}, but the vocabulary ends at {vocab_size - 1}. "
                "Prepare it with the same tokenizer."
            )
        counts += np.bincount(chunk.astype(np.int64), minlength=vocab_size)
    return counts


def _with_compressors(known: Baselines, train: bytes, val: bytes) -> Baselines:
    if not val:
        return known
    compressors: tuple[Callable[[bytes], int], ...] = (_xz_size, _zstd_size)
    with ThreadPoolExecutor() as pool:  # Both let go of the interpreter while they work.
        sizes = [[pool.submit(size, text) for text in (train + val, train)] for size in compressors]
        xz, zstd = (8 * (both.result() - given.result()) / len(val) for both, given in sizes)
    return replace(
        known,
        xz_bits_per_byte=xz,
        zstd_bits_per_byte=zstd,
        compressed_train_bytes=len(train),
        compressed_val_bytes=len(val),
    )


def _xz_size(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def _zstd_size(text: bytes) -> int:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(text))
