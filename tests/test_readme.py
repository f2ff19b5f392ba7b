"""The commands and the snippet of the README run, on small models, and what it and its neighbours state is true."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from documented_commands import Block, Reader, blocks_of, faster, write_texts

import tokenloom
from tokenloom.cli.main import COMMANDS
from tokenloom.errors import Interrupted

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    folder = tmp_path_factory.mktemp("reader")
    write_texts(folder)
    return Reader(folder, folder / "cache")


def blocks(language: str) -> list[Block]:
    return [block for block in blocks_of(README) if block.language == language]


@pytest.mark.timeout(900)  # minutes on a busy machine
@pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")
def test_the_commands_run_one_after_the_other(reader):
    commands = [command for block in blocks("sh") for command in block.commands]
    commands = [command for command in commands if "tokenloom" in command and not command.startswith("pip")]
    assert len(commands) >= 5
    assert any(" | " in command for command in commands)
    in_shell = next(
        command for command in commands if command.startswith("tokenloom generate")
    )  # the installed command
    for command in commands:
        run = reader.run_in_shell if command == in_shell else reader.run
        run(faster(command))


def test_the_python_snippet_runs(reader):
    (snippet,) = blocks("python")
    shutil.rmtree(reader.folder / "runs", ignore_errors=True)
    assert len(reader.run_python(snippet.text).strip().splitlines()) >= 2


def test_the_table_names_every_command():
    assert set(re.findall(r"^\| `tokenloom (\w+)", README, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_exit_codes_are_those_of_the_program():
    assert "0 (success), 1 (failure), 2 (usage error)" in README
    for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
        assert f"{128 + number} ({name})" in README
        assert Interrupted("stopped", number).exit_code == 128 + number


def test_the_citation_names_this_version():
    assert f"\nversion: {tokenloom.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_workflow_runs_the_steps_of_make_check():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    workers = re.search(r"^WORKERS \?= (.+)$", makefile, flags=re.MULTILINE)
    assert recipe
    assert workers
    steps = [step.strip().replace("$(BIN)/", "").replace("$(WORKERS)", workers[1]) for step in recipe[1].splitlines()]
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert [step for step in steps if f"run: {step}\n" not in workflow] == []


def test_the_public_names_are_these():
    assert tokenloom.__all__ == [
        "GPT2",
        "Config",
        "Modern",
        "SamplingParams",
        "TokenloomError",
        "__version__",
        "compare",
        "evaluate",
        "export",
        "find_copied",
        "generate",
        "inspect",
        "load",
        "load_tokenizer",
        "prepare",
        "resume",
        "search",
        "serve",
        "train",
    ]


@pytest.mark.parametrize("name", tokenloom.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(tokenloom, name)
    assert name == "__version__" or (value.__doc__ or "").strip()
