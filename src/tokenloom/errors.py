"""Every error that a user can cause or meet, in one tree.

A message says what is wrong, what was found, and what to do about it, in one or two lines. The command line prints
the message alone and exits with `exit_code`; in Python the errors are ordinary exceptions. Mistakes of our own are
`assert`s and never come from here.
"""

from __future__ import annotations


class TokenloomError(Exception):
    """Anything that Tokenloom refuses or fails to do, with a message for the person who asked."""

    exit_code = 1


class UsageError(TokenloomError):
    """The request itself is off: an unknown flag, a value out of range, a missing argument."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration, from a file or from flags, that names unknown keys or contradicts itself."""


class DataError(TokenloomError):
    """Text or token shards that cannot be found, read or used as they are."""


class TokenizerError(TokenloomError):
    """A tokenizer that cannot be made, read or trusted to give text back unchanged."""


class CheckpointError(TokenloomError):
    """A checkpoint or run folder that is missing, damaged, or belongs to another run."""


class WeightsError(TokenloomError):
    """Weights whose names, shapes or format do not fit the model."""


class TrainingError(TokenloomError):
    """Training cannot start or go on: nothing to train on, or a loss that is no longer a number."""


class MissingExtraError(UsageError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs the package "{package}". Install it with: pip install "tokenloom[{extra}]"')


class Interrupted(TokenloomError):
    """Stopped by a signal after saving what there was; `exit_code` is 128 plus the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
