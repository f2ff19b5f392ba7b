"""The terminal: a console on stderr, and what a console can display."""

from __future__ import annotations

import codecs
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

UNENCODABLE = "tokenloom.ascii_form"
"""Error handler of codecs: our own symbols are encoded as ASCII, other characters as \\u escapes."""
# Pictures of control characters come from `visible`; the escapes name the character itself.
_SYMBOLS = {"…": "...", "≥": ">=", "│": "|", "·": "-", "→": "->", "↵": "\\n", "\ufffd": "?"} | {
    chr(0x2400 + code): f"\\x{code:02x}" for code in range(32)
}


def stderr_console() -> Console:
    """A console on stderr; stdout is reserved for results."""
    from rich.console import Console

    # Only a real terminal gets control characters; FORCE_COLOR in a CI log does not make it one.
    return Console(stderr=True, force_terminal=sys.stderr is not None and sys.stderr.isatty())


def can_draw(console: Console) -> bool:
    """Whether the console can redraw what it has shown."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which displays HTML."""
    # IPython is looked up, not imported: without it in the process there is no notebook.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def encodable(text: str, encoding: str) -> str:
    """Text that the encoding can represent: our own symbols in ASCII, other characters it lacks as \\u escapes."""
    return text.encode(encoding, UNENCODABLE).decode(encoding)


def _ascii_form(error: UnicodeError) -> tuple[str, int]:
    """What an encoder writes in place of characters that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(
        _SYMBOLS.get(one) or one.encode("ascii", "backslashreplace").decode() for one in characters
    ), error.end


codecs.register_error(UNENCODABLE, _ascii_form)
