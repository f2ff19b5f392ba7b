""" "-" on the command line: it means standard input, but to the parser it looks like an option without a name."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tokenloom.errors import UsageError

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
