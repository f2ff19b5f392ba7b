"""The arguments of a command as they are typed: dashes, numbers and "~", the same for every flag.

The argument parser takes "-" and "- item" for options without a name, rounds 2.7 to an integer, and does not know "~".
Therefore dashes are escaped before it sees the arguments, and the values are checked before it converts them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import get_args

from cyclopts import App, ArgumentCollection, Token

from tokenloom.errors import UsageError
from tokenloom.home import expand_home

# No argument of a process can contain it.
_ESCAPE = "\0"
_OPTION = re.compile(r"--?[A-Za-z]|--$")


def escape_dashes(tokens: Iterable[str]) -> list[str]:
    """The arguments for the parser: those that begin with a dash but are no option, such as "-", are escaped."""
    return [_ESCAPE + token if token.startswith("-") and not _OPTION.match(token) else token for token in tokens]


def unescape_dashes(text: str) -> str:
    """The text as the user typed it."""
    return text.replace(_ESCAPE, "")


def check_arguments(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Prepare the values of a command for conversion; the parser calls this between parsing and conversion.

    Raises `UsageError` for an integer with a fraction, a number that is not finite, and an unknown home folder.
    """
    for argument in arguments:
        hints = get_args(argument.hint) or (argument.hint,)
        for position, token in enumerate(argument.tokens):
            argument.tokens[position] = token.evolve(value=_prepared(token, hints))  # pyright: ignore  # its **kwargs are not annotated


def _prepared(token: Token, hints: tuple[object, ...]) -> str:
    value = unescape_dashes(token.value)
    name = token.keyword or "the argument"
    if not value or (NoneType in hints and value.lower() in ("none", "null")):
        return value
    if int in hints:
        _require(_is_integer(value), f"{name} must be an integer, got {value}. Write a whole number, such as 1.")
    elif float in hints:
        _require(_is_finite(value), f"{name} must be a finite number, got {value}. Write a number, such as 0.5.")
    elif Path in hints:
        return str(expand_home(value))
    return value


def _is_integer(value: str) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True


def _is_finite(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
