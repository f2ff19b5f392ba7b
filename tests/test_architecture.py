"""ARCHITECTURE.md shows the layers of .importlinter; `python tests/test_architecture.py` renews the picture."""

import ast
import configparser
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "tokenloom"
DOCUMENT = ROOT / "ARCHITECTURE.md"
PICTURE = re.compile(r"(?<=<!-- layers: begin -->\n)```text\n.*?```\n(?=<!-- layers: end -->)", flags=re.DOTALL)
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
WIDTH = 120


def read_layers() -> list[list[str]]:
    """The layers of the import contract, highest first, each with its modules."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    return [[name.strip() for name in line.split(":")] for line in lines if line.strip()]


def module_file(name: str) -> Path:
    folder = PACKAGE / name
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def first_docstring_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring, f"{file} has no docstring"
    return docstring.splitlines()[0]


def draw_layers() -> str:
    """The layers as a text block, highest first; modules of one layer do not import each other."""
    layers = read_layers()
    names = [f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py" for layer in layers for name in layer]
    width = max(map(len, names)) + 2
    rows: list[str] = []
    for number, layer in zip(range(len(layers), 0, -1), layers, strict=True):
        for position, name in enumerate(layer):
            label = f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py"
            margin = f"{number if position == 0 else '':>2}  {label:<{width}}"
            summary = first_docstring_line(module_file(name))
            rows += textwrap.wrap(summary, WIDTH, initial_indent=margin, subsequent_indent=" " * len(margin))
    return "\n".join(["```text", *rows, "```", ""])


def write_layers() -> None:
    """Renew the picture in ARCHITECTURE.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert PICTURE.search(text), "ARCHITECTURE.md has lost its layers: begin and layers: end comments"
    DOCUMENT.write_text(PICTURE.sub(lambda _: draw_layers(), text), encoding="utf-8")


def test_the_picture_shows_the_layers_of_the_import_contract():
    (picture,) = PICTURE.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert picture == draw_layers(), "renew it: python tests/test_architecture.py"


def test_every_module_is_in_exactly_one_layer():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    layered = [name for layer in read_layers() for name in layer]
    assert sorted(layered) == sorted(modules - {"__init__"})


def test_only_the_version_is_imported_from_the_package_root():
    # `from tokenloom import api` is an import of that module; every other public name lives in a layer of its own.
    allowed = {"__version__"} | {name for layer in read_layers() for name in layer}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "tokenloom" and node.level == 0:
                assert {alias.name for alias in node.names} <= allowed, file


# Written when the documentation is built, which checks links to them.
GENERATED_FOLDERS = (ROOT / "docs" / "project", ROOT / "docs" / "reference")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_source_file_that_a_document_names_exists(document):
    text = PICTURE.sub("", document.read_text(encoding="utf-8"))
    for name in re.findall(r"`([\w./-]+\.py)`", text):
        assert any((folder / name).exists() for folder in (ROOT, PACKAGE.parent, PACKAGE, document.parent)), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_one(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        file = (document.parent / target).resolve()
        assert file.exists() or file.parent in GENERATED_FOLDERS, target


if __name__ == "__main__":
    write_layers()
