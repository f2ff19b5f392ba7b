"""The commands and snippets on the pages run, page by page, and the output that a page shows is that of its command."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from documentation_pages import EXECUTED_ELSEWHERE, written_pages
from documented_commands import Block, Reader, blocks_of, faster, write_texts

from tokenloom.cli.arguments import escape_dashes
from tokenloom.cli.main import app

PROGRAMS = {"tokenloom", "cat", "tail"}
LANGUAGES = {"sh", "python", "toml", "text", "dockerfile", "{toctree}"}
PAGES = {name: blocks_of(text) for name, text in written_pages().items() if not name.startswith(EXECUTED_ELSEWHERE)}
EXECUTED = [
    name for name, blocks in PAGES.items() if any(b.language in ("sh", "python") and not b.reason for b in blocks)
]
SKIPPED = [(name, block) for name, blocks in PAGES.items() for block in blocks if block.reason]
NUMBER = re.compile(r"-?\d[\d,.]*(e[+-]\d+)?")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder with texts and the run that the pages assume, and the cache beside it."""
    shelf = tmp_path_factory.mktemp("shelf")
    (shelf / "folder").mkdir()
    write_texts(shelf / "folder")
    Reader(shelf / "folder", shelf / "cache").run(
        faster("tokenloom train book.txt --tokenizer bpe:300 --out runs/book")
    )
    return shelf


@pytest.fixture
def reader(shelf, tmp_path) -> Reader:
    shutil.copytree(shelf / "folder", tmp_path / "folder")
    return Reader(tmp_path / "folder", shelf / "cache")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for models of this size
    yield
    torch.set_num_threads(threads)


@pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")
@pytest.mark.parametrize("name", EXECUTED)
def test_the_commands_of_a_page_run_one_after_the_other(name, reader):
    if "--out runs/book\n" in written_pages()[name]:
        shutil.rmtree(reader.folder / "runs")
    printed = ""
    for block in PAGES[name]:
        if block.reason:
            continue
        match block.language:
            case "sh":
                assert {command.split()[0] for command in block.commands} <= PROGRAMS, "mark it as not run"
                printed = "".join(reader.run(prepared(command)) for command in block.commands)
            case "python":
                printed = reader.run_python(block.text)
            case "toml":
                (reader.folder / "settings.toml").write_text(block.text)
            case "text":
                assert missing_lines(block, printed) == []


def prepared(command: str) -> str:
    """The command with few steps; without DATA on the small text, because the README's test trains on the default."""
    if command == "tokenloom train":
        command += " book.txt --tokenizer bpe:300 --out runs/python-docs"
    return faster(command)


def missing_lines(block: Block, printed: str) -> list[str]:
    """The lines of a block that were not printed, numbers and the width of columns aside."""
    lines = {normalized(line) for line in printed.splitlines()}
    return [line for line in block.text.splitlines() if normalized(line) not in lines]


def normalized(line: str) -> str:
    return " ".join(NUMBER.sub("0", line).split())


@pytest.mark.parametrize(("name", "block"), SKIPPED, ids=str)
def test_what_is_not_run_has_a_syntax_and_options_that_exist(name, block):
    if block.language == "python":
        compile(block.text, name, "exec")
        return
    for command in block.commands:
        words = shlex.split(command)
        if "tokenloom" in words:
            arguments = words[words.index("tokenloom") + 1 :]
            app.parse_args(escape_dashes(arguments), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", PAGES)
def test_blocks_are_of_a_known_language(name):
    assert {block.language for block in PAGES[name]} <= LANGUAGES


def test_an_option_that_does_not_exist_is_found():
    with pytest.raises(Exception, match="max-stepps"):
        app.parse_args(["train", "--train.max-stepps", "3"], exit_on_error=False, print_error=False)


def test_a_line_that_was_not_printed_is_found():
    block = Block("text", "loss  3.54 nats\nperplexity 34\n", None)
    assert missing_lines(block, "loss    12.1 nats\n") == ["perplexity 34"]
