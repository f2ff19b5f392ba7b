"""Words: runs of characters other than white space, the same for every text, whatever it was read from.

White space is Unicode's, as for `str.split`: non-breaking and ideographic spaces separate words too. The token
"<|endoftext|>" between two documents separates words and is none.
"""

from __future__ import annotations

import codecs
import re

import numpy as np

from tokenloom.data.token_reader import TokenReader
from tokenloom.data.tokenizers import Tokenizer

_WORD = re.compile(r"\s*\S+")


def count_words(tokens: TokenReader, tokenizer: Tokenizer, chunk: int = 1 << 20) -> int:
    """The words of a text, of which `chunk` tokens are in memory at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may end in the next chunk
    words, in_word = 0, False
    for start in range(0, len(tokens), chunk):
        ids = tokens.read(start, min(chunk, len(tokens) - start))
        text = decoder.decode(_separated(ids, tokenizer))
        # A word that continues from the previous chunk was counted there.
        words += len(text.split()) - (in_word and bool(text) and not text[0].isspace())
        in_word = not text[-1].isspace() if text else in_word
    rest = decoder.decode(b"", final=True)
    return words + (bool(rest) and not in_word)


def word_starts(text: str) -> list[int]:
    """The position of each word in the UTF-8 bytes of a text; the white space before a word belongs to it."""
    starts: list[int] = []
    position = previous = 0
    for match in _WORD.finditer(text):
        position += len(text[previous : match.start()].encode("utf-8"))
        previous = match.start()
        starts.append(position)
    return starts


def _separated(ids: np.ndarray, tokenizer: Tokenizer) -> bytes:
    """The bytes of ids, with a space in place of each end-of-text token."""
    ends = np.flatnonzero(ids == tokenizer.eot_id)
    return b" ".join(tokenizer.decode_bytes(part[part != tokenizer.eot_id]) for part in np.split(ids, ends))
