"""The commands and snippets on the pages run, page by page, and the output that a page shows is that of its command."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from documentation_pages import EXECUTED_ELSEWHERE, written_pages
from documented_commands import Block, Reader, blocks_of, faster, write_texts

from scripts import renew_outputs
from tokenloom.cli.arguments import escape_dashes
from tokenloom.cli.main import app

PROGRAMS = {"tokenloom", "cat", "tail"}
LANGUAGES = {"sh", "python", "toml", "text", "dockerfile", "{toctree}"}
PAGES = {name: blocks_of(text) for name, text in written_pages().items() if not name.startswith(EXECUTED_ELSEWHERE)}
EXECUTED = [
    name for name, blocks in PAGES.items() if any(b.language in ("sh", "python") and not b.reason for b in blocks)
]
SKIPPED = [(name, block) for name, blocks in PAGES.items() for block in blocks if block.reason]
NUMBER = re.compile(r"-?\d[\d,.:]*(e[+-]\d+)?[kMBT]?")
DURATION = re.compile(r"\d+ h( \d+ min)?|\d+ min( \d+ s)?|[\d.]+ s\b")
QUOTED = re.compile(r'"(\\.|[^"\\…])*["…]')
# Lines of a training run whose text depends on the model and the time; their names are compared.
NAMED = re.compile(
    r"\s*(?:(size|tokens|training|data|windows|model|machine|plan|needs|sample) {2,}|(baselines|step|saved|Done:) ).*"
)
PROMPT = re.compile(r'--prompt "([^"]+)"')


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


@pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")
@pytest.mark.parametrize("name", EXECUTED)
def test_the_commands_of_a_page_run_one_after_the_other(name, reader):
    if "--out runs/book\n" in written_pages()[name]:
        shutil.rmtree(reader.folder / "runs")
    prompts = set(PROMPT.findall(written_pages()[name]))
    printed, is_generated = "", False
    for block in PAGES[name]:
        if block.reason:
            continue
        match block.language:
            case "sh":
                assert {command.split()[0] for command in block.commands} <= PROGRAMS, "mark it as not run"
                printed = "".join(reader.run(faster(command)) for command in block.commands)
                is_generated = block.commands[-1].startswith("tokenloom generate")
            case "python":
                printed, is_generated = reader.run_python(block.text), False
            case "toml":
                (reader.folder / "settings.toml").write_text(block.text)
            case "text":
                shown = Block("text", block.text.splitlines()[0], None) if is_generated else block
                assert missing_lines(shown, printed, prompts) == []


def missing_lines(block: Block, printed: str, prompts: set[str]) -> list[str]:
    """The lines of a block that were not printed, apart from numbers, text after a prompt and the width of columns.

    Of a line that ends with "…", the beginning is compared.
    """
    lines = {stable(line, prompts) for line in printed.splitlines()}

    def was_printed(line: str) -> bool:
        shown = stable(line, prompts)
        return shown in lines or (line.endswith("…") and any(one.startswith(shown.rstrip("…")) for one in lines))

    return [line for line in block.text.splitlines() if not was_printed(line)]


def stable(line: str, prompts: set[str]) -> str:
    """A line without what depends on the machine, the model and the text."""
    if named := NAMED.match(line):
        return named[1] or named[2]
    for prompt in prompts:
        if line.startswith(prompt):
            return prompt
    return " ".join(NUMBER.sub("0", DURATION.sub("0", QUOTED.sub('""', line))).split())


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
    block = Block("text", "loss  3.54 nats\nperplexity 34\nmodel     5M parameters\nIt was day\n…\n", None)
    printed = "loss    12.1 nats\nmodel     20k parameters, 60k FLOPs\nIt was night\n"
    assert missing_lines(block, printed, {"It was"}) == ["perplexity 34"]
    assert missing_lines(Block("text", 'a "b" 1 min 2 s, 5.2k tok\n', None), 'a "c d" 9.1 s, 17 tok\n', set()) == []


def test_a_renewed_output_keeps_as_many_lines_as_the_page_has_shown():
    printed = "".join(f"{line}\n" for line in "abcdefg")
    assert renew_outputs.shortened(printed, "1\n2\n…\n3\n") == "a\nb\n…\ng\n"
    assert renew_outputs.shortened(printed, "1\n…\nc\n4\n…\n") == "a\n…\nc\nd\n…\n"
    assert renew_outputs.shortened(printed, "1\n") == printed
    assert renew_outputs.shortened("abcdef\nghi\n", "123…\n…\n") == "abc…\n…\n"


def test_outputs_are_renewed_in_their_place(tmp_path):
    page = "```python\nprint('new')\n```\n\n```text\nold\n```\n\n```sh\nfalse\n```\n"
    assert renew_outputs.renewed(page, tmp_path) == page.replace("text\nold", "text\nnew")
