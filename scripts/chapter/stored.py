"""Outputs that the build does not compute: docs/chapter/stored.json, with the hash of the code that gave them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from scripts.chapter.cells import CHAPTER, Cell, code_hash

FILE = CHAPTER / "stored.json"
COMMAND = "python -m scripts.chapter renew"


class StoredError(Exception):
    """A stored output is missing, was edited, or belongs to other code."""


@dataclass(frozen=True)
class StoredOutput:
    """The outputs of a cell as a notebook keeps them, and variables that later cells need."""

    outputs: list[dict[str, Any]]
    values: dict[str, Any]
    origin: str
    """Where the output was computed, or who prints it."""


def read_stored(cells: list[Cell], name: str) -> StoredOutput:
    """The stored output of a cell; raises `StoredError` unless it is that of the current code."""
    document = json.loads(FILE.read_text(encoding="utf-8"))
    if document["sha256"] != content_hash(document["cells"]):
        raise StoredError(f"{FILE.name} was edited: its sha256 differs. Renew it: {COMMAND}")
    entry = document["cells"].get(name)
    if entry is None:
        raise StoredError(f'{FILE.name} has no output of the cell "{name}". Renew it: {COMMAND}')
    if entry["code_sha256"] != code_hash(cells, name):
        raise StoredError(f'the code of the cell "{name}" has changed since its output was stored. Renew it: {COMMAND}')
    return StoredOutput(entry["outputs"], entry["values"], entry["origin"])


def write_stored(entries: dict[str, dict[str, Any]]) -> None:
    """Replace stored.json."""
    document = {"command": COMMAND, "sha256": content_hash(entries), "cells": entries}
    FILE.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def content_hash(entries: dict[str, Any]) -> str:
    """The hash of all entries, independent of the layout of the file."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
