"""Records of measurements: lines of benchmarks/data/results.jsonl, each with the machine, the commit and the date."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = ROOT / "benchmarks" / "data"
RESULTS = DATA / "results.jsonl"
# Flags of /proc/cpuinfo and their names, the most capable first.
VECTOR_INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 and bf16", "avx512f": "AVX-512", "avx2": "AVX2"}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write(path: Path, line: dict) -> None:
    """Add a line to a file at once, so that an interruption afterwards does not lose it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def append(part: str, result: dict) -> None:
    """Add the result of a part of RESULTS.md."""
    write(RESULTS, {"part": part, **origin(), "date": today(), "result": result})


def measured(part: str) -> list[dict]:
    """The results of a part that were measured on this machine and at this commit."""
    wanted = {"part": part, **origin()}
    return [record["result"] for record in read(RESULTS) if record.items() >= wanted.items()]


def origin() -> dict:
    """Where a measurement is made."""
    return {"machine": machine(), "commit": commit()}


def machine() -> str:
    return f"{os.cpu_count()} cores of {cpu_name()}, torch {version('torch')}"


def cpu_name() -> str:
    """The model, and its widest vector instructions: machines of one name differ in them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = values.get("flags", "").split()
    widest = next((f" with {name}" for flag, name in VECTOR_INSTRUCTIONS.items() if flag in flags), "")
    return values.get("model name", platform.processor()) + widest


def commit() -> str:
    """The short hash of the last commit that changed the package, with a plus if the package differs from it.

    Commits of results do not change it, so that measurements continue after them.
    """
    return git("log", "-1", "--format=%h", "--abbrev=7", "--", "src") + (
        "+" if git("status", "--porcelain", "--", "src") else ""
    )


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
