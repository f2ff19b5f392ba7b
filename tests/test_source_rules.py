"""Rules that hold over the whole source tree: who owns files on disk, how files are named, and plain wording."""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "tokenloom"
SOURCES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.*", "src/tokenloom/**/*.toml", "src/tokenloom/**/*.j2")
    for path in sorted(ROOT.glob(pattern))
]

RUN_FILES = (
    "config.toml",
    "identity.json",
    "launch.json",
    "plan.json",
    "baselines.json",
    "metrics.jsonl",
    "samples.jsonl",
    "summary.json",
    "report.html",
    "loss.png",
    "loss.pdf",
)
MOST_JSON_DICTIONARIES = 15
LONGEST = 350
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
# Phrases that this project once used in place of standard terms.
UNUSUAL_PHRASES = (
    "taken up again",
    "floors?",
    "damaged",
    "not sound",
    "hesitates?",
    "by heart",
    "sharpness",
    "shall",
    "likeliest",
    "of a learner",
    "hand(ed)? (it |them )?on",
    "as (it|they) stands?",
    "lets? (it|them) write",
    "wishes",
    "seen it",
    "what (it|a model|the model) saw",
    "would rather",
    "of the house",
    "draw for draw",
    "remembers",
    "anew",
    "for nothing predicts",
    "go(es)? on (with|from)",
    "sittings?",
)
UNUSUAL = re.compile(rf"\b({'|'.join(UNUSUAL_PHRASES)})\b".replace(" ", r"\s+"), flags=re.IGNORECASE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def offenders(check: Callable[[Path], list[str]], files: list[Path]) -> list[str]:
    """What breaks a rule, as FILE: REASON."""
    return [f"{name_of(path)}: {reason}" for path in files for reason in check(path)]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def run_files_named(path: Path) -> list[str]:
    """String literals that name a file of a run; docstrings may."""
    documentation = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    return [
        f"line {node.lineno} spells {name}"
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        for name in (*RUN_FILES, "checkpoints")
        if (name in node.value if "." in name else name == node.value)
    ]


def durable_writes(path: Path) -> list[str]:
    """Renames, flushes to the disk and hashes of whole files, which are storage.py's."""
    return [
        f"line {node.lineno} calls {ast.unparse(node.func)}"
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_durable_write(node, node.func)
    ]


def is_durable_write(call: ast.Call, function: ast.Attribute) -> bool:
    owner = ast.unparse(function.value)
    if owner in ("os", "shutil"):
        return function.attr in ("replace", "rename", "renames", "fsync", "fdatasync", "move")
    if owner == "hashlib":
        whole_file = [ast.unparse(argument).endswith(".read_bytes()") for argument in call.args]
        return function.attr == "file_digest" or any(whole_file)
    # Path.replace and Path.rename take one argument; str.replace and dataclasses.replace take more.
    return function.attr in ("replace", "rename") and len(call.args) == 1 and not call.keywords


def unusual_wording(path: Path) -> list[str]:
    """Phrases in everything that people read: documents, comments and string literals."""
    text = path.read_text(encoding="utf-8")
    lines = [(token.start[0], token.string) for token in read_aloud(text)] if path.suffix == ".py" else [(1, text)]
    return [
        f'line {start + words[: found.start()].count(chr(10))} says "{" ".join(found.group().split())}"'
        for start, words in lines
        for found in UNUSUAL.finditer(words)
    ]


def read_aloud(source: str) -> Iterator[tokenize.TokenInfo]:
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return (token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type in kinds)


def test_only_run_folder_names_the_files_of_a_run():
    others = [path for path in SOURCES if path != PACKAGE / "run_folder.py"]
    assert offenders(run_files_named, others) == []


def test_templates_name_no_file_of_a_run():
    pages = [path for suffix in ("html", "js", "css", "jinja") for path in PACKAGE.rglob(f"*.{suffix}")]
    assert [path for path in pages if any(name in path.read_text(encoding="utf-8") for name in RUN_FILES)] == []


def test_only_storage_replaces_flushes_and_hashes_files():
    others = [path for path in SOURCES if path != PACKAGE / "storage.py"]
    assert offenders(durable_writes, others) == []


def test_dictionaries_of_anything_are_kept_to_json():
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]"
    ]
    assert len(found) <= MOST_JSON_DICTIONARIES, found


def test_no_file_is_longer_than_350_lines():
    def too_long(path: Path) -> list[str]:
        count = len(path.read_text(encoding="utf-8").splitlines())
        return [f"{count} lines"] if count > LONGEST else []

    assert offenders(too_long, SOURCES) == []


def test_files_are_named_for_what_they_hold():
    assert [name_of(path) for path in SOURCES if path.stem in VAGUE_NAMES or path.parent.name in VAGUE_NAMES] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_wording_is_plain():
    assert offenders(unusual_wording, SOURCES + DOCUMENTS) == []
