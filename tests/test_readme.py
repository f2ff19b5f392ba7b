"""The commands and the snippet of the README run, on small models, and what it and its neighbours state is true."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tokenloom
from tokenloom.cli.main import COMMANDS
from tokenloom.errors import Interrupted

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = "--train.max-steps 2 --train.batch-size 2 --train.micro-batch-size 2 --model.n-layer 1 --model.block-size 32"
# Patterns in a command, and what makes the same command fast.
FASTER = {
    r"^tokenloom train --resume (\S+)": r"tokenloom train --resume \1 --train.max-steps 4",
    r"--budget 5m": "--budget 30s --train.batch-size 2 --model.n-layer 1 --model.n-head 1 --model.n-embd 32 "
    "--sample.max-new-tokens 5",
    r"^(.*tokenloom train\b(?! --resume)(?!.*--budget).*)$": rf"\1 {SMALL}",
    r"--tokenizer gpt2": "--tokenizer gpt2 --model.n-embd 24",  # 50,257 rows of 768 take seconds a step
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    text = "".join(f"Chapter {n}. It was night {n}, and {n * n} stars were out.\n" for n in range(1500))
    (folder / "book.txt").write_text(text)
    (folder / "corpus").mkdir()
    for part in range(20):
        (folder / "corpus" / f"{part}.md").write_text(text[part * 900 : (part + 2) * 900])
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "TOKENLOOM_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.timeout(900)  # a dozen processes, each with its own start: minutes on a busy machine
@pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")
def test_the_commands_run_one_after_the_other(folder):
    commands = [line.partition("  #")[0].strip() for line in "".join(blocks("sh")).splitlines()]
    commands = [command for command in commands if "tokenloom" in command and not command.startswith("pip")]
    assert len(commands) >= 5
    for command in commands:
        for pattern, replacement in FASTER.items():
            command = re.sub(pattern, replacement, command)
        result = run(command, folder)
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.skipif(os.name == "nt", reason="the command is that of a POSIX shell")
def test_the_python_snippet_runs(folder):
    (snippet,) = blocks("python")
    result = run(f"rm -rf runs/book; {shlex.quote(sys.executable)} -c {shlex.quote(snippet)}", folder)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.strip().splitlines()) >= 2


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
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert recipe
    steps = [re.sub(r"\$\(BIN\)/", "", step).strip() for step in recipe[1].splitlines()]
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
        "serve",
        "train",
    ]


@pytest.mark.parametrize("name", tokenloom.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(tokenloom, name)
    assert name == "__version__" or (value.__doc__ or "").strip()
