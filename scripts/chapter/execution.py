"""Execution of a page's cells in a kernel, as a reader executes the notebook."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from scripts.chapter.cells import Cell, code_hash, page_names, read_cells
from scripts.chapter.stored import read_stored, write_stored
from tokenloom.data.corpora import corpus_file

Outputs = dict[str, list[dict[str, Any]]]
"""The outputs of cells by name, as a notebook keeps them."""

GRAY = "#7f868f"  # legible on white and on black
# Plots are transparent, with gray text, so that they fit light and dark pages; the same plot gives the same bytes.
STYLE = {
    "axes.edgecolor": GRAY,
    "axes.facecolor": "none",
    "axes.labelcolor": GRAY,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "figure.figsize": (7.2, 3.9),
    "font.size": 11,
    "legend.frameon": False,
    "svg.hashsalt": "tokenloom",
    "text.color": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
}
PRINTING = {"bbox_inches": "tight", "metadata": {"Date": None}}
PREPARATION = f"""
import matplotlib
from matplotlib_inline.backend_inline import set_matplotlib_formats
matplotlib.rcParams.update({STYLE})
set_matplotlib_formats("svg", **{PRINTING})
"""
TIMEOUT = 3600  # seconds for a cell


def run_page(page: str) -> Outputs:
    """The outputs of a page's cells: stored ones are read from stored.json, network cells have none."""
    cells = read_cells(page)
    with _folder() as folder:
        sources = [_source(cells, cell) for cell in cells]
        executed = _execute(sources, folder)
    return {
        cell.name: read_stored(cells, cell.name).outputs if cell.kind == "stored" else executed[number]
        for number, cell in enumerate(cells)
    }


def renew_stored() -> None:
    """Execute the pages that have stored cells, in order and in one folder, and write stored.json."""
    entries: dict[str, dict[str, Any]] = {}
    origin = (
        f"{platform.system()}, {platform.machine()}, CPU, Python {platform.python_version()}, torch {version('torch')}"
    )
    with _folder() as folder:
        for page in page_names():
            cells = read_cells(page)
            if not any(cell.kind == "stored" for cell in cells):
                continue
            sources = ["" if cell.kind == "network" else cell.code for cell in cells]
            stored = [cell for cell in cells if cell.kind == "stored"]
            asked = {cell.name: "{" + ", ".join(f"{name!r}: {name}" for name in cell.values) + "}" for cell in stored}
            reading = [f"import json\nprint(json.dumps({values}))" for values in asked.values()]
            executed = _execute([*sources, *reading], folder)
            for number, cell in enumerate(stored):
                values = json.loads(executed[len(cells) + number][0]["text"])
                entries[cell.name] = {
                    "code_sha256": code_hash(cells, cell.name),
                    "origin": origin,
                    "outputs": executed[[other.name for other in cells].index(cell.name)],
                    "values": values,
                }
    write_stored(entries)


def _source(cells: list[Cell], cell: Cell) -> str:
    """What is executed for a cell: its code, or the stored values that later cells need."""
    if cell.kind == "run":
        return cell.code
    values = read_stored(cells, cell.name).values if cell.kind == "stored" else {}
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())


def _execute(sources: list[str], folder: Path) -> list[list[dict[str, Any]]]:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (PREPARATION, *sources)]
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: it warns of its transport at every start
    )
    client.execute()
    return [_plain(cell.outputs) for cell in notebook.cells[1:]]


def _plain(outputs: list[Any]) -> list[dict[str, Any]]:
    """Outputs without the numbers of their execution; what was printed in parts is one output."""
    plain: list[dict[str, Any]] = []
    for output in json.loads(json.dumps(outputs)):
        output.pop("execution_count", None)
        if plain and output["output_type"] == "stream" and plain[-1].get("name") == output["name"]:
            plain[-1]["text"] += output["text"]
        else:
            plain.append(output)
    return plain


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary working folder, and a cache with the text of the chapter, which the cells fill further."""
    story = corpus_file("the-verdict")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cache" / "corpora").mkdir(parents=True)
        shutil.copy(story, folder / "cache" / "corpora")
        before = os.environ.get("TOKENLOOM_CACHE")
        os.environ["TOKENLOOM_CACHE"] = str(folder / "cache")
        try:
            yield folder
        finally:
            if before is None:
                del os.environ["TOKENLOOM_CACHE"]
            else:
                os.environ["TOKENLOOM_CACHE"] = before
