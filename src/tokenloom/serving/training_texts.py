"""Training texts in memory, with which the server compares other texts."""

from __future__ import annotations

import threading
from collections import OrderedDict

from tokenloom.evaluation.copied_text import TrainingText, training_text_of
from tokenloom.run_folder import RunFolder

MAX_IN_MEMORY = 2
"""Each takes at most 200 MB."""


class TrainingTexts:
    """The training texts that were used last, by their fingerprints. Thread-safe; one is read at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[str, TrainingText] = OrderedDict()

    def of_run(self, run: RunFolder) -> TrainingText:
        """The training text of a run, which takes seconds the first time; raises `DataError` if it is gone."""
        identity = run.identity()
        fingerprint = "" if identity is None else identity.dataset
        with self._lock:
            if fingerprint not in self._texts:
                self._texts[fingerprint] = training_text_of(run)
            self._texts.move_to_end(fingerprint)
            while len(self._texts) > MAX_IN_MEMORY:
                self._texts.popitem(last=False)
            return self._texts[fingerprint]
