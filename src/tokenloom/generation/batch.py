"""The sequences of an engine that have started: which row of the cache each has, and the filling of rows in chunks."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from tokenloom.errors import SequenceError, WeightsError
from tokenloom.generation.cache_rows import CacheRows
from tokenloom.generation.logprobs import score_tokens
from tokenloom.generation.sequence import Step, TokenSequence
from tokenloom.generation.uncached_rows import UncachedRows
from tokenloom.model.language_model import LanguageModel


class Batch:
    """Sequences that run, in rows 0 to n - 1, and sequences whose rows have to be filled before they run.

    Rows are filled one after the other, each in row n, the next after those that run.
    """

    def __init__(self, model: LanguageModel, max_rows: int, vocab_size: int, *, use_cache: bool) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._rows = CacheRows(model, max_rows) if use_cache else UncachedRows(model)
        self._filling: deque[TokenSequence] = deque()
        self.running: list[TokenSequence] = []
        """In the order of their rows."""
        self.ended: list[Step] = []
        """The steps of sequences that ended without a new token, until the engine returns them."""

    @property
    def sequences(self) -> list[TokenSequence]:
        """All sequences."""
        return [*self.running, *self._filling]

    def start(self, sequence: TokenSequence) -> None:
        """Add a sequence, which runs when its row has been filled."""
        self._filling.append(sequence)

    def fill(self, budget: int) -> None:
        """Fill rows with at most `budget` tokens; sequences that only score their prompt end."""
        while self._filling:
            sequence, row = self._filling[0], len(self.running)
            if sequence.filled == 0:
                self._rows.clear(row)
            count = min(budget, sequence.unfilled)
            if count:
                self._append(row, sequence, count)
            budget -= count
            if sequence.unfilled:
                break
            self._filling.popleft()
            self._run(row, sequence)

    def next_logits(self) -> Tensor:
        """Logits (rows, V) of the token after the window of each running sequence."""
        return self._rows.next_logits([sequence.window[-1] for sequence in self.running])

    def remove(self, row: int) -> None:
        """Remove the sequence of this number, if there is one."""
        self.ended = [step for step in self.ended if step.row != row]
        self._filling = deque(sequence for sequence in self._filling if sequence.row != row)
        for index, sequence in enumerate(self.running):
            if sequence.row == row:
                self.leave(index)
                break

    def leave(self, index: int) -> None:
        """Free the row of a running sequence: the last one moves there, and the one being filled follows it."""
        last = len(self.running) - 1
        self._rows.remove(index, last)
        moved = self.running.pop()
        if index < last:
            self.running[index] = moved
        if self._filling and self._filling[0].filled:
            self._rows.remove(last, last + 1)

    def refill(self) -> None:
        """Fill all rows again, without numbers that are not finite, before the next token."""
        is_filling = bool(self._filling) and self._filling[0].filled > 0
        for row in range(len(self.running) + is_filling):
            self._rows.erase(row)
        self._filling.extendleft(reversed(self.running))
        self.running = []
        for sequence in self._filling:
            sequence.restart()

    def _append(self, row: int, sequence: TokenSequence, count: int) -> None:
        """Append the next `count` tokens of a window to its row, and score the tokens after them if requested."""
        start = sequence.filled
        hidden = self._rows.append(row, sequence.window[start : start + count])[0]  # (T, C)
        sequence.filled += count
        if sequence.prompt_logprobs is not None:
            targets = sequence.window[start + 1 : start + 1 + count]
            top = sequence.top_logprobs or 0
            try:
                scored = score_tokens(hidden, self._model.lm_head, targets, top, self._vocab_size)
            except WeightsError as error:
                raise SequenceError(str(error), sequence.row) from error
            sequence.prompt_logprobs += scored

    def _run(self, row: int, filled: TokenSequence) -> None:
        """Let a sequence run whose row has been filled, and others with the same tokens, such as its samples."""
        alike = [other for other in self._filling if other.fills_like(filled)]
        for sequence in (filled, *alike):
            sequence.filled = filled.filled
            if sequence is not filled:
                self._filling.remove(sequence)
                sequence.prompt_logprobs = filled.prompt_logprobs
            if sequence.remaining:
                if len(self.running) > row:
                    self._rows.copy(row, len(self.running))
                self.running.append(sequence)
        for sequence in (filled, *alike):
            if not sequence.remaining:
                self.ended.append(sequence.report(None, "length"))
