"""Markdown for the reference: tables, and the docstrings of fields, which exist in the source only."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def plain(text: str) -> str:
    """A docstring as Markdown: what would be markup in it is escaped, except code between backticks."""
    parts = text.split("`")
    return "`".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def code(text: str) -> str:
    """Text as code; empty for no text."""
    return f"`{text}`" if text else ""


def first_paragraph(documented: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def field_docs(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a class and in its properties, base classes first; "" for those without."""
    docs: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if owner.__module__.startswith("tokenloom."):
            docs |= _own_field_docs(owner)
    return docs


def types_of(kind: type) -> dict[str, str]:
    """The types of the fields and properties of a class, as they are written."""
    types: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if owner.__module__.startswith("tokenloom."):
            for node in _body(owner):
                if isinstance(node, ast.AnnAssign):
                    types[ast.unparse(node.target)] = ast.unparse(node.annotation)
                elif isinstance(node, ast.FunctionDef) and _is_property(node) and node.returns is not None:
                    types[node.name] = ast.unparse(node.returns)
    return types


def fields_table(kind: type) -> str:
    """A table of the public fields and properties of a class."""
    docs, types = field_docs(kind), types_of(kind)
    rows = [(code(name), code(types[name]), plain(docs[name])) for name in docs if not name.startswith("_")]
    return table(("field", "type", "meaning"), rows)


def _own_field_docs(owner: type) -> dict[str, str]:
    docs: dict[str, str] = {}
    body = _body(owner)
    for number, node in enumerate(body):
        if isinstance(node, ast.AnnAssign):
            after = body[number + 1] if number + 1 < len(body) else None
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            docs[ast.unparse(node.target)] = " ".join(str(after.value.value).split()) if documented else ""
        elif isinstance(node, ast.FunctionDef) and _is_property(node):
            docs[node.name] = " ".join((ast.get_docstring(node) or "").split())
    return docs


def _body(owner: type) -> list[ast.stmt]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef)
    return definition.body


def _is_property(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) in ("property", "cached_property") for decorator in node.decorator_list)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("<", "\\<").replace("*", "\\*")
