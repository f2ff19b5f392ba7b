"""Text arguments of commands: a text, a file, or - for standard input.

The argument parser takes a lone "-" for an option without a name, so "-" is replaced before it sees the arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tokenloom.errors import DataError, UsageError

STDIN = "\N{HYPHEN BULLET}stdin"


def escape_dashes(tokens: Iterable[str]) -> list[str]:
    """The arguments for the parser, with `STDIN` instead of "-"."""
    return [STDIN if token == "-" else token for token in tokens]


def source_names(tokens: Iterable[str]) -> list[str]:
    """The sources as the user typed them."""
    return ["-" if token == STDIN else token for token in tokens]


def text_or_stdin(text: str) -> str:
    """The text, or all of standard input for "-"; raises `UsageError` if that is not UTF-8."""
    if text not in (STDIN, "-"):
        return text
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start:,}. Re-encode it."
        ) from None


def text_of(command: str, file: str | None, text: str | None) -> str:
    """The text of a command that takes a file or --text.

    Raises `UsageError` unless exactly one of them is given, and `DataError` if the file is not UTF-8.
    """
    if (file is None) == (text is None):
        raise UsageError(f"{command} needs one text: the name of a file, - for stdin, or --text. Give one of them.")
    if text is not None:
        return text
    assert file is not None
    if file == STDIN:
        return text_or_stdin(file)
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,}"
        raise DataError(f"{file} is not UTF-8: {byte}. Re-encode it.") from None
