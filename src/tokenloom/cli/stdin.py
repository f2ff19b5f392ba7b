"""Text given to a command: as such, as a file, or as "-", standard input.

To the parser "-" looks like an option without a name, so it travels under another one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from tokenloom.errors import DataError, UsageError

STDIN = "\N{HYPHEN BULLET}stdin"


def hide_dashes(tokens: Iterable[str]) -> list[str]:
    """Tokens for the parser, "-" under another name."""
    return [STDIN if token == "-" else token for token in tokens]


def source_names(tokens: Iterable[str]) -> list[str]:
    """Sources as they were typed."""
    return ["-" if token == STDIN else token for token in tokens]


def text_or_stdin(text: str) -> str:
    """The text itself, or for "-" all of standard input; raises `UsageError` if that is not UTF-8."""
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
    """The one text that a command was given; raises `UsageError` for none or two, `DataError` if it is not UTF-8."""
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
        wrong = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,}"
        raise DataError(f"{file} is not UTF-8: {wrong}. Re-encode it.") from None
