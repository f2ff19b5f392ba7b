"""The pages and notebooks of the chapter.

python -m scripts.chapter check      execute every cell, and compare what it prints with the chapter
python -m scripts.chapter notebooks  write docs/notebooks
python -m scripts.chapter renew      compute the stored outputs again, among them the 90 training steps (minutes)
"""

from __future__ import annotations

import sys

from scripts.chapter.cells import page_names
from scripts.chapter.execution import renew_stored, run_page
from scripts.chapter.notebooks import write_notebooks
from scripts.chapter.pages import faults


def check() -> int:
    found = [f"{page}: {fault}" for page in page_names() for fault in faults(page, run_page(page))]
    print("\n".join(found) or "every figure is the chapter's")
    return 1 if found else 0


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check"]:
            return check()
        case ["notebooks"]:
            print("\n".join(str(file) for file in write_notebooks()))
            return 0
        case ["renew"]:
            renew_stored()
            return 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
