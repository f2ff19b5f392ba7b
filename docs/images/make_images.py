"""Renew the images of the README from a real run: the terminal while a model trains, and the report of the run.

    pip install pyte
    python docs/images/make_images.py [ARGUMENT…]

trains `tokenloom train ARGUMENT…` (without arguments: the default, two minutes) in a temporary folder, under a
terminal of its own. Needs Chromium for the report. Linux and macOS only.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI

IMAGES = Path(__file__).parent
COLUMNS, LINES = 84, 34
REPORT_WIDTH, REPORT_HEIGHT = 1000, 1205
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = sys.argv[1:]
        screen = train(["tokenloom", "train", *arguments], Path(folder))
        (IMAGES / "terminal.svg").write_text(draw_terminal(screen), encoding="utf-8")
        (report,) = Path(folder).glob("runs/*/report.html")
        photograph(report, IMAGES / "report.png")


def train(command: list[str], folder: Path) -> list[list[Segment]]:
    """Train under a terminal; returns its screen at the last moment when the command was still in sight."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    stream.feed(f"\x1b[1m$ {' '.join(command)}\x1b[0m\r\n".encode())
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)}
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, stdout=follower, stderr=follower
    )
    os.close(follower)
    chosen: list[list[Segment]] = []
    while output := read(leader):
        stream.feed(output)
        if screen.display[0].startswith("$ ") and is_live(screen.display):
            chosen = [row_of(screen, number) for number in range(last_line(screen.display) + 1)]
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}:\n" + "\n".join(screen.display))
    return chosen


def read(leader: int) -> bytes:
    """What the process wrote; nothing once it has closed the terminal."""
    try:
        return os.read(leader, 65536)
    except OSError:
        return b""


def is_live(lines: list[str]) -> bool:
    """Whether the progress line is on the screen, and a whole evaluation above it."""
    bars = [number for number, line in enumerate(lines) if re.search(r"\d+%  step .* left", line)]
    return len(bars) == 1 and not lines[bars[0] - 1].startswith("step")


def last_line(lines: list[str]) -> int:
    return max(number for number, line in enumerate(lines) if line.strip())


def row_of(screen: pyte.Screen, number: int) -> list[Segment]:
    cells = [screen.buffer[number][column] for column in range(COLUMNS)]
    return [Segment("".join(cell.data for cell in run), style) for style, run in itertools.groupby(cells, style_of)]


def style_of(cell: pyte.screens.Char) -> Style:
    names = {"brown": "yellow", "default": None}
    color = names.get(cell.fg, cell.fg)
    if color and re.fullmatch(r"[0-9a-f]{6}", color):
        color = f"#{color}"
    color = re.sub(r"^bright(?=[a-z])", "bright_", color) if color else None
    return Style(color=color, bold=cell.bold, italic=cell.italics, underline=cell.underscore)


def draw_terminal(rows: list[list[Segment]]) -> str:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115 - closed with the process
    for row in rows:
        console.print(Segments(row), soft_wrap=True)
        console.print()
    svg = console.export_svg(title="tokenloom train", theme=DIMMED_MONOKAI)
    return re.sub(
        r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL
    )  # the page's own monospace font; nothing is fetched


def photograph(page: Path, image: Path) -> None:
    """The top of a page as PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed. Install Chromium.")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
    size = f"--window-size={REPORT_WIDTH},{REPORT_HEIGHT}"
    command = [browser, *options, size, f"--screenshot={image}", page.resolve().as_uri()]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
