"""Every command and snippet of the README runs, on small models so that it takes seconds."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import tokenloom
from tokenloom.cli.main import COMMANDS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SMALL = "--train.max-steps 2 --train.batch-size 2 --train.micro-batch-size 2 --model.n-layer 1 --model.block-size 32"
SMALLER = {
    r"^tokenloom train --resume (\S+)": r"tokenloom train --resume \1 --train.max-steps 4",
    r"--budget 5m": "--budget 20s --train.batch-size 2 --model.n-layer 1 --model.n-embd 32 --sample.max-new-tokens 5",
    r"^(.*tokenloom train (?!--resume)(?!.*--budget).*)$": rf"\1 {SMALL}",
    # 124 million parameters are for the user's machine, not for a test's
    r"--tokenizer gpt2": "--tokenizer gpt2 --model.n-embd 24",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("reader")
    text = "".join(f"Chapter {n}. It was night {n}, and {n * n} stars were out.\n" for n in range(1500))
    (place / "book.txt").write_text(text)
    (place / "corpus").mkdir()
    for part in range(20):
        (place / "corpus" / f"{part}.md").write_text(text[part * 900 : (part + 2) * 900])
    return place


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TOKENLOOM_CACHE": str(place / "cache")}
    return subprocess.run(
        ["sh", "-c", command], cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.timeout(900)  # a dozen processes, each with its own start: minutes on a busy machine
def test_the_commands_run_one_after_the_other(place):
    commands = [line.partition("  #")[0].strip() for line in "".join(blocks("sh")).splitlines()]
    commands = [command for command in commands if "tokenloom" in command]
    assert len(commands) >= 5
    for command in commands:
        for pattern, smaller in SMALLER.items():
            command = re.sub(pattern, smaller, command)
        done = run(command, place)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_python_snippet_runs(place):
    (snippet,) = blocks("python")
    done = run(f"rm -rf runs/book; {shlex.quote(sys.executable)} -c {shlex.quote(snippet)}", place)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip().splitlines()) >= 2


def test_the_table_names_every_command():
    assert set(re.findall(r"^\| `tokenloom (\w+)", README, flags=re.MULTILINE)) == set(COMMANDS)


def test_no_placeholder_is_left():
    assert "@@" not in README


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
        "generate",
        "inspect",
        "load",
        "load_tokenizer",
        "prepare",
        "resume",
        "train",
    ]


@pytest.mark.parametrize("name", tokenloom.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(tokenloom, name)
    assert name == "__version__" or (value.__doc__ or "").strip()
