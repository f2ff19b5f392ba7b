"""Text arguments of commands: a text, a file, or - for standard input, all read by the rules of training text."""

from __future__ import annotations

import sys

from tokenloom.errors import DataError, UsageError, shortened
from tokenloom.home import expand_home

STDIN = "-"


def text_or_stdin(text: str, name: str) -> str:
    """The text of the argument `name`, or all of standard input for "-"; raises `DataError` if it is not UTF-8."""
    return _decoded(_read_stdin(), "standard input") if text == STDIN else text_argument(text, name)


def text_argument(text: str, name: str) -> str:
    """The text of the argument `name`, "-" included; raises `DataError` if it is not UTF-8."""
    # Bytes of an argument that its encoding does not permit reach Python as surrogates.
    return _decoded(text.encode("utf-8", "surrogateescape"), name)


def text_of(command: str, file: str | None, text: str | None) -> str:
    """The text of a command that takes a file or --text.

    Raises `UsageError` unless exactly one of them is given, and `DataError` if the file cannot be read as UTF-8.
    """
    if (file is None) == (text is None):
        raise UsageError(f"{command} needs one text: the name of a file, - for stdin, or --text. Give one of them.")
    if text is not None:
        return text_argument(text, "--text")
    assert file is not None
    if file == STDIN:
        return _decoded(_read_stdin(), "standard input")
    try:
        data = expand_home(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it contains a null character"
        raise DataError(
            f'cannot read the file "{shortened(file)}": {reason}. Check the path, or pass a text itself with --text.'
        ) from None
    return _decoded(data, file)


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise DataError('there is no standard input ("-"). Pass a file instead.')
    return sys.stdin.buffer.read()


def _decoded(data: bytes, name: str) -> str:
    from tokenloom.data.readers import decode_text

    return decode_text(data, name)
