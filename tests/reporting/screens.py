"""Consoles with and without a terminal, and a clock set by hand."""

import io

from rich.console import Console


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def plain():
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def terminal(**options):
    return Console(file=io.StringIO(), force_terminal=True, force_jupyter=False, width=80, height=40, **options)


def shown_on(console):
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
