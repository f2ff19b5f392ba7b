"""The texts that tests read, from the folder that TOKENLOOM_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def texts_folder() -> Path:
    folder = os.environ.get("TOKENLOOM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TOKENLOOM_DATA names no folder with the-verdict.txt and tinyshakespeare.txt")
    return Path(folder)


@pytest.fixture(scope="session")
def verdict(texts_folder: Path) -> str:
    return (texts_folder / "the-verdict.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def shakespeare(texts_folder: Path) -> str:
    return (texts_folder / "tinyshakespeare.txt").read_text(encoding="utf-8")
