"""Preparing data in tests, and reading what was prepared."""

from __future__ import annotations

from pathlib import Path

from tokenloom.config import DataConfig
from tokenloom.data.shards import Shards, Split


def config(*sources: str | Path, **options: object) -> DataConfig:
    return DataConfig.model_validate({"sources": tuple(map(str, sources)), "tokenizer": "byte", **options})


def ids(split: Split) -> list[int]:
    return split.read(0, len(split)).tolist()


def text(shards: Shards, split: str = "train") -> str:
    return shards.tokenizer.decode(ids(getattr(shards, split)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
