"""Text for display: control characters and those that reorder text are replaced by visible ones."""

from __future__ import annotations

import re

_CONTROLS = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}
_CONTROLS_IN_TEXT = {code: picture for code, picture in _CONTROLS.items() if chr(code) not in "\t\n"}
# Surrogates, the second set of control characters, and characters that change the direction of the text around them.
_UNPRINTABLE = re.compile("[\ud800-\udfff\x80-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Text with every control character except tab and newline replaced by a visible one.

    The result cannot send control sequences to a terminal or reorder its text, and can be encoded as UTF-8.
    """
    return _UNPRINTABLE.sub("\ufffd", text.translate(_CONTROLS_IN_TEXT))


def visible_line(text: str) -> str:
    """Text as one line: like `visible`, with visible tabs and newlines too."""
    return _UNPRINTABLE.sub("\ufffd", text.translate(_CONTROLS))
