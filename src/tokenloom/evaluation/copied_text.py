"""Passages of a text that are copied word for word from a training text.

A sorted array of hashed n-grams finds where a passage may be; there the two texts are compared token by token, so that
nothing is reported that is not in the training text. Every `STEP`-th n-gram is in the array: a passage of
n + STEP - 1 tokens contains one of them, wherever it begins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tokenloom.data.shards import shards_of_run
from tokenloom.data.token_reader import TokenReader
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import DataError
from tokenloom.run_folder import RunFolder

MAX_TOKENS = 20_000_000
"""Tokens of a training text that a text is compared with: the first ones."""
SHORTEST_BYTES = 40
"""The shortest passage has as many tokens as this many bytes of the training text have on average."""
STEP = 4
MAX_OCCURRENCES = 16
"""Of an n-gram that occurs more often, so many are compared: the first ones."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_NO_TOKEN = np.uint32(2**32 - 1)


@dataclass(frozen=True)
class Passage:
    """Characters `start` to `end` - 1 of a text, which are in the training text too."""

    start: int
    end: int
    position: int
    """Of its first token in the training text."""
    before: str
    """The training text before the passage, within its document."""
    after: str


@dataclass(frozen=True)
class CopiedText:
    """The passages of a text that are copied, in order. None is within another one, but they can overlap."""

    passages: Sequence[Passage]
    training_tokens: int
    """Of the whole training text."""
    compared_tokens: int
    """Of them, the first ones, with which the text was compared."""
    shortest_tokens: int
    """Tokens of the shortest passage that is found."""

    @property
    def characters(self) -> int:
        """The characters that are in some passage."""
        count = end = 0
        for passage in self.passages:
            count += passage.end - max(end, passage.start)
            end = passage.end
        return count

    def after(self, prompt: int) -> CopiedText:
        """Without the passages that are in the first `prompt` characters only."""
        return replace(self, passages=[passage for passage in self.passages if passage.end > prompt])

    def to_json(self) -> dict[str, object]:
        return {"copied_characters": self.characters, **asdict(self)}


class TrainingText:
    """The first `limit` tokens of a training text, in which passages of other texts are looked up."""

    def __init__(
        self,
        tokens: TokenReader,
        tokenizer: Tokenizer,
        *,
        limit: int = MAX_TOKENS,
        shortest_bytes: int = SHORTEST_BYTES,
    ) -> None:
        self.n_tokens = len(tokens)
        """Of the whole training text."""
        self._tokenizer = tokenizer
        self._fewest_visible = shortest_bytes // 2
        # A copy: files that are mapped into memory could be replaced meanwhile.
        self._tokens = np.array(tokens.read(0, min(limit, len(tokens))))
        mean_bytes = float(tokenizer.byte_lengths[self._tokens].mean()) if len(self._tokens) else 1.0
        self.shortest = max(STEP + 1, math.ceil(shortest_bytes / max(mean_bytes, 1.0)))
        """Tokens of the shortest passage that is found."""
        self._n = self.shortest - STEP + 1
        hashes = _hash_ngrams(self._tokens, self._n, STEP)
        order = np.argsort(hashes, kind="stable")  # equal n-grams stay in the order of the text
        self._hashes, self._positions = hashes[order], (STEP * order).astype(np.uint32)

    def find_copied(self, text: str) -> CopiedText:
        """The passages of at least `shortest` tokens that are in the training text, within a document.

        Those that are mostly white space, such as the indentation of code, are left out.

        Raises `TokenizerError` for a lone surrogate.
        """
        tokens = self._tokenizer.encode(text)
        byte_starts = [0, *itertools.accumulate(len(self._tokenizer.token_bytes[id]) for id in tokens)]
        ids = np.array(tokens, dtype=np.uint32)
        ids[ids == self._tokenizer.eot_id] = _NO_TOKEN  # no passage continues in another document
        matches = _maximal(self._matches(ids))
        characters = _CharacterOffsets(text)
        passages = [
            self._passage(text, characters, byte_starts[start], byte_starts[stop], position, stop - start)
            for start, stop, position in matches
        ]
        found = [one for one in passages if len("".join(text[one.start : one.end].split())) >= self._fewest_visible]
        return CopiedText(found, self.n_tokens, len(self._tokens), self.shortest)

    def _matches(self, ids: np.ndarray) -> list[tuple[int, int, int]]:
        """Every match of at least `shortest` tokens: its first token, the one after its last, and its position."""
        hashes = _hash_ngrams(ids, self._n, 1)
        first = np.searchsorted(self._hashes, hashes, side="left")
        last = np.minimum(np.searchsorted(self._hashes, hashes, side="right"), first + MAX_OCCURRENCES)
        matches: list[tuple[int, int, int]] = []
        compared: dict[int, int] = {}  # by the distance of the two positions: up to which token
        for index in np.flatnonzero(last > first).tolist():
            for position in self._positions[first[index] : last[index]].tolist():
                if compared.get(position - index, 0) > index:
                    continue
                start = index - _common(ids[:index][::-1], self._tokens[:position][::-1])
                stop = index + _common(ids[index:], self._tokens[position : position + len(ids) - index])
                compared[position - index] = max(stop, index + 1)
                if stop - start >= self.shortest:
                    matches.append((start, stop, position - (index - start)))
        return matches

    def _passage(
        self, text: str, characters: _CharacterOffsets, start: int, stop: int, position: int, count: int
    ) -> Passage:
        first, end = characters.at_or_after(start), characters.at_or_before(stop)
        passage = text[first:end]
        return Passage(
            start=first + len(passage) - len(passage.lstrip()),
            end=end - (len(passage) - len(passage.rstrip())),
            position=position,
            before=self._quoted(max(0, position - self.shortest), position, last=True),
            after=self._quoted(position + count, position + count + self.shortest, last=False),
        )

    def _quoted(self, start: int, stop: int, *, last: bool) -> str:
        """Tokens as text, of which only the last or the first document is quoted."""
        ids = self._tokens[start:stop]
        ends = np.flatnonzero(ids == self._tokenizer.eot_id)
        if len(ends):
            ids = ids[ends[-1] + 1 :] if last else ids[: ends[0]]
        return self._tokenizer.decode(ids)


def find_copied(run: str | Path, text: str) -> CopiedText:
    """Find the passages of a text that are copied word for word from the training text of a run.

    At most the first 20 million tokens of the training text are compared, token by token; `compared_tokens` says how
    many. A passage has as many tokens as 40 bytes of that text on average, or more. Raises `TokenloomError`, also if
    the token shards of the run are gone.
    """
    folder = RunFolder(Path(run))
    folder.config()  # raises an error that says so if it is no run
    return training_text_of(folder).find_copied(text)


def training_text_of(run: RunFolder) -> TrainingText:
    """The training text of a run; raises `DataError` if its token shards were moved, deleted or replaced."""
    shards = shards_of_run(run)
    if shards is None:
        identity = run.identity()
        place = f" at {identity.shards}" if identity is not None and identity.shards is not None else ""
        raise DataError(
            f"the token shards of {run.path} are no longer{place or ' known'}, or were prepared again from another "
            "text. Prepare the same text in that folder again."
        )
    return TrainingText(shards.train, shards.tokenizer)


def _hash_ngrams(ids: np.ndarray, n: int, step: int) -> np.ndarray:
    """The hashes (uint64) of the n-grams that begin at every `step`-th token: polynomials modulo 2^64."""
    count = max(0, (len(ids) - n) // step + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(n):
        hashes *= _MULTIPLIER
        hashes += ids[offset : offset + count * step : step]
    return hashes


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """How many elements are the same at the start of two arrays."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    first = int(differs.argmax()) if length else 0
    return first if length and differs[first] else length


def _maximal(matches: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The matches that are not within another one, in order; of equal ones that at the first position."""
    kept: list[tuple[int, int, int]] = []
    for match in sorted(matches, key=lambda match: (match[0], -match[1], match[2])):
        if not kept or match[1] > kept[-1][1]:
            kept.append(match)
    return kept


class _CharacterOffsets:
    """Positions in the UTF-8 bytes of a text as positions in its characters."""

    def __init__(self, text: str) -> None:
        data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
        begins = (data & 0xC0) != 0x80
        self._begun = np.concatenate([np.zeros(1, np.int64), np.cumsum(begins)])  # before each byte
        self._is_start = np.append(begins, True)

    def at_or_after(self, byte: int) -> int:
        return int(self._begun[byte])

    def at_or_before(self, byte: int) -> int:
        return int(self._begun[byte]) - (not self._is_start[byte])
