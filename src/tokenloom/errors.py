"""The exceptions of Tokenloom, in one tree.

A message is one line: what is wrong, the value found, and what to do. The command line prints it without a traceback
and exits with `exit_code`; in Python they are ordinary exceptions. Bugs in Tokenloom itself are `AssertionError`s.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Literal

Topic = Literal[
    "memory",
    "not finite",
    "resuming",
    "no checkpoint",
    "run in use",
    "lossy tokenizer",
    "encoding",
    "short text",
    "no such text",
    "no such model",
    "download",
    "extra",
    "pickle",
]

DOCUMENTATION = "docs"
"""Where the documentation is: a folder of the repository."""
# The pages that say more than a message of one line can: what was probably the cause, and what to try in which order.
PAGES: Mapping[Topic, str] = {
    "memory": "how-to/memory.md",
    "not finite": "how-to/loss-curves.md#the-loss-is-not-finite",
    "resuming": "how-to/resume.md#what-may-change",
    "no checkpoint": "how-to/resume.md#if-it-cannot-be-resumed",
    "run in use": "how-to/resume.md#if-it-cannot-be-resumed",
    "lossy tokenizer": "how-to/tokenizers.md#if-a-tokenizer-is-refused",
    "encoding": "how-to/errors.md#text-that-is-not-utf-8",
    "short text": "how-to/errors.md#too-little-text",
    "no such text": "how-to/errors.md#a-text-that-is-not-found",
    "no such model": "how-to/errors.md#a-model-that-is-not-found",
    "download": "how-to/errors.md#a-download-that-fails",
    "extra": "how-to/errors.md#a-package-that-is-missing",
    "pickle": "how-to/errors.md#a-file-that-could-execute-code",
}

MAX_QUOTED = 100  # characters of a value in a message


def see_page(topic: Topic | None) -> str:
    """A sentence that names the page of a topic, to follow a message; empty without a topic."""
    return f" See {DOCUMENTATION}/{PAGES[topic]}." if topic else ""


def shortened(value: str, limit: int = MAX_QUOTED) -> str:
    """A value as a message quotes it: on one line, and cut if it is long."""
    line = " ".join(value.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated; recognizes torch's `RuntimeError`s without importing torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or "DefaultCPUAllocator: " in str(error):
        return True
    return isinstance(error, OSError) and error.errno == errno.ENOMEM


class TokenloomError(Exception):
    """Base of all errors that are caused by input, files or the machine."""

    exit_code = 1
    is_reported = False
    """Whether another process of a distributed run prints the error."""

    def __init__(self, message: str = "", *, topic: Topic | None = None) -> None:
        super().__init__(message)
        self.topic: Topic | None = topic

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by calling the class with `args`, which is not what every constructor takes.
        return _restore, (type(self), self.args, self.__dict__)

    def copy(self) -> TokenloomError:
        """The same error as another object."""
        return _restore(type(self), self.args, self.__dict__)


class UsageError(TokenloomError):
    """Invalid arguments: an unknown flag, a value out of range, a missing argument."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration with unknown keys, invalid values or values that contradict each other."""


class DataError(TokenloomError):
    """Text or token shards that are missing, unreadable or invalid."""


class TokenizerError(TokenloomError):
    """A tokenizer that is missing or invalid, or that does not decode text to the same bytes."""


class CheckpointError(TokenloomError):
    """A checkpoint or run folder that is missing, corrupt, or belongs to another run."""


class WeightsError(TokenloomError):
    """Weights whose names, shapes or format do not match the model."""


class SequenceError(WeightsError):
    """A model whose logits for one sequence of a batch are not finite; the other sequences can continue."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class TrainingError(TokenloomError):
    """Training cannot start or continue: no data, or a loss that is not finite."""


class DivergedError(TrainingError):
    """The loss or the gradient of a training step is not finite."""

    def __init__(self, message: str, loss: float, grad_norm: float) -> None:
        super().__init__(message, topic="not finite")
        self.loss = loss
        self.grad_norm = grad_norm


class DistributedError(TokenloomError):
    """Another process of a distributed run has ended, or cannot be reached."""


class OutputError(TokenloomError):
    """Standard output cannot be written: a full disk, or a pipe whose reader has exited."""


class MissingExtraError(UsageError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f'{purpose} needs the package "{package}". Install it with: pip install "tokenloom[{extra}]"', topic="extra"
        )


class Interrupted(TokenloomError):
    """Stopped by a signal after saving a checkpoint; `exit_code` is 128 plus the signal number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def _restore(kind: type[TokenloomError], args: tuple[object, ...], attributes: dict[str, object]) -> TokenloomError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error
