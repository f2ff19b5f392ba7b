"""What commands print: results on stdout, notices and errors on stderr. Nothing else prints.

Names, texts and messages come from files that others made. A terminal would obey the control characters in them, so
they are printed as visible characters.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tokenloom.reporting.formatting import visible, visible_line
from tokenloom.strict_json import dump_json

if TYPE_CHECKING:
    from rich.console import Console


def print_result(text: str) -> None:
    """Print lines to stdout."""
    print(visible(text))


def print_json(value: object) -> None:
    """Print one JSON object to stdout, in ASCII, which every encoding of stdout can represent."""
    print(dump_json(value))


def flush_results() -> None:
    """Write what was printed to stdout now: the command goes on."""
    sys.stdout.flush()


def print_json_list(values: Mapping[str, object], key: str, items: Iterable[object]) -> None:
    """Print one JSON object, as `print_json` does, whose last value is a list that need not fit in memory."""
    sys.stdout.write(f"{dump_json(values)[:-1]}, {dump_json(key)}: [")
    for number, item in enumerate(items):
        sys.stdout.write((", " if number else "") + dump_json(item))
    print("]}")


def print_notice(text: str) -> None:
    """Print a notice or an error, one line, to stderr."""
    print(f"tokenloom: {visible_line(text)}", file=sys.stderr)


def print_progress(text: str) -> None:
    """Print a line about work that continues to stderr."""
    print(visible_line(text), file=sys.stderr, flush=True)


def write_text(text: str) -> None:
    """Write text to stdout at once: exactly to a file or pipe, with visible control characters to a terminal."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def result_console() -> Console:
    """A console on stdout, for colored results. The text printed on it has to be visible already."""
    from rich.console import Console

    return Console(highlight=False)
