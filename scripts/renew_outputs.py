"""Renew the outputs on pages of the documentation: run their commands unchanged, and replace the text blocks.

    python scripts/renew_outputs.py BOOK PAGE…

`book.txt` of the pages is then BOOK, and `runs/book` a run of 500 steps on it. A line "…" in a block stands for lines
that are left out; the block keeps the number of its lines. A page is executed up to its last block
of output. `tests/documentation` executes the commands with few steps, and compares the lines except for numbers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(\S*)\n(.*?)```", flags=re.DOTALL)
OMITTED = "…"
RUN = (
    "tokenloom train book.txt --tokenizer bpe:1024 --model.n-layer 2 --model.n-embd 128 --model.block-size 128 "
    "--train.batch-size 8 --train.max-steps 500 --out runs/book"
)
TEXTS = 20  # in the folder corpus/


def main(book: Path, pages: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as name:
        original = Path(name) / "original"
        write_texts(original, book.read_text(encoding="utf-8"))
        execute("sh", RUN, original)
        for page in pages:
            folder = Path(name) / page.stem
            shutil.copytree(original, folder)
            text = page.read_text(encoding="utf-8")
            if "--out runs/book\n" in text:  # it trains the run itself
                shutil.rmtree(folder / "runs")
            page.write_text(renewed(text, folder), encoding="utf-8")


def write_texts(folder: Path, text: str) -> None:
    """The texts that the pages name: a file, and a folder with its parts."""
    (folder / "corpus").mkdir(parents=True)
    (folder / "book.txt").write_text(text, encoding="utf-8")
    size = len(text) // TEXTS
    for part in range(TEXTS):
        (folder / "corpus" / f"{part}.md").write_text(text[part * size : (part + 1) * size], encoding="utf-8")


def renewed(page: str, folder: Path) -> str:
    """A page with the outputs that its commands print now, executed in `folder`."""
    last = page.rfind("```text\n")
    printed = ""

    def block(found: re.Match[str]) -> str:
        nonlocal printed
        is_skipped, language, text = found.groups()
        if found.start() > last or is_skipped:
            return found[0]
        if language == "toml":
            (folder / "settings.toml").write_text(text, encoding="utf-8")
        elif language == "text":
            return f"```text\n{shortened(printed, text)}```"
        elif language in ("sh", "python"):
            printed = execute(language, text, folder)
        return found[0]

    return BLOCK.sub(block, page)


def execute(language: str, text: str, folder: Path) -> str:
    """What commands or a snippet print; of stderr, which has the progress of other commands, only that of training."""
    command = [sys.executable, "-c", text] if language == "python" else ["sh", "-e", "-c", text]
    print(text.rstrip(), file=sys.stderr)
    errors = subprocess.STDOUT if "tokenloom train" in text else subprocess.PIPE
    result = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True)
    if result.returncode:
        sys.exit(f"{result.stdout}{result.stderr or ''}")
    return result.stdout


def shortened(printed: str, before: str) -> str:
    """The lines of an output that the block before it showed; one that was cut with "…" is cut at the same column.

    Of several parts between "…", the first is at the beginning of the output, the last at its end, and any other where
    a line begins with the same word.
    """
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    first, *parts = [part.strip("\n").splitlines() for part in f"\n{before}".split(f"\n{OMITTED}\n")]
    kept = lines[: len(first)] if parts else lines
    position = len(first)
    for part in parts[:-1]:
        word = part[0].split()[0]
        position = next(n for n in range(position, len(lines)) if lines[n].split()[:1] == [word])
        kept += [OMITTED, *lines[position : position + len(part)]]
        position += len(part)
    if parts:
        kept += [OMITTED, *lines[len(lines) - len(parts[-1]) :]]
    shown = before.splitlines()
    return "".join(f"{_cut(line, old)}\n" for line, old in zip_longest(kept, shown[: len(kept)], fillvalue=""))


def _cut(line: str, before: str) -> str:
    is_cut = before.endswith(OMITTED) and 1 < len(before) < len(line)
    return line[: len(before) - 1] + OMITTED if is_cut else line


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(page) for page in sys.argv[2:]])
