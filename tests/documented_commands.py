"""The code blocks of Markdown documents, their commands with few steps on a small text, and how they are run."""

import contextlib
import functools
import io
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import tokenloom
from tokenloom.cli.main import main
from tokenloom.data import corpora, sources
from tokenloom.training import automatic, budget
from tokenloom.tuning import search

# Before a block that is not executed: <!-- not run: the reason -->
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)```", flags=re.DOTALL
)
SHELL_SYNTAX = re.compile(r"[|<>*;&$()]")
QUOTED_ARGUMENT = re.compile(r"\"[^\"]*\"|'[^']*'")
# What makes `tokenloom train` fast, unless the command sets it. A model to start from has its own shape.
SMALL_STEPS = {"--train.batch-size": "2", "--train.micro-batch-size": "2"}
SMALL_MODEL = {"--model.n-layer": "1", "--model.n-head": "2", "--model.n-embd": "32", "--model.block-size": "32"}
FEW_TOKENS = {"--sample.max-new-tokens": "5"}
SMALL_SETTINGS = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 32},
    "sample": {"max_new_tokens": 5},
}
LIBRARY_FILES = corpora.standard_library_files
# Without arguments, the model is chosen for the time.
DEFAULT = "tokenloom train"
FAST_DEFAULT = f"{DEFAULT} --budget 30s --train.max-steps 2 --sample.max-new-tokens 5"


@dataclass(frozen=True)
class Block:
    """A code block, with the reason why it is not executed, if there is one."""

    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block, without comments."""
        lines = (line.partition("  #")[0].strip() for line in self.text.replace("\\\n", "").splitlines())
        return [line for line in lines if line]


def blocks_of(markdown: str) -> list[Block]:
    return [Block(found["language"], found["text"], found["reason"]) for found in BLOCK.finditer(markdown)]


def write_texts(folder: Path) -> None:
    """The texts that the documents name: a file and a folder."""
    text = "".join(f"Chapter {n}. It was night {n}, and {n * n} stars were out.\n" for n in range(1500))
    (folder / "book.txt").write_text(text)
    (folder / "corpus").mkdir()
    for part in range(20):
        (folder / "corpus" / f"{part}.md").write_text(text[part * 900 : (part + 2) * 900])


def faster(command: str) -> str:
    """The same command with few steps of a small model; commands that do not train are not changed."""
    if command == DEFAULT:
        return FAST_DEFAULT
    if "tokenloom search" in command:
        return _faster_search(command)
    before, train, rest = command.partition("tokenloom train")
    if not train:
        return command
    rest = re.sub(r"(?<=--train\.max-steps )\d+", lambda found: str(_fewer(int(found[0]))), rest)
    rest = re.sub(r"(?<=--budget )\S+", "30s", rest)
    flags: dict[str, str] = {}
    if "--train.max-steps" not in rest:
        flags["--train.max-steps"] = "4" if "--resume" in rest else "2"
    if "--resume" not in rest:
        flags |= SMALL_STEPS | FEW_TOKENS | ({} if "--init-from" in rest else SMALL_MODEL)
    added = [f"{flag} {value}" for flag, value in flags.items() if f"{flag} " not in f"{rest} "]
    if "--train.batch-size " in rest:  # the micro-batch has to divide it
        added = [flag for flag in added if not flag.startswith("--train.micro-batch-size")]
    return f"{before}{train}{' '.join([rest, *added])}"


def _faster_search(command: str) -> str:
    """A search of two trials, or of three if it is continued to more, without a budget."""
    if "--resume" in command:
        return re.sub(r"(?<=--trials )\d+", "3", command)
    command = re.sub(r"(?<=--trials )\d+", "2", re.sub(r"--budget \S+|--train\.max-steps \d+", "", command))
    flags = {"--train.max-steps": "2", "--tokenizer": "byte"} | SMALL_STEPS | SMALL_MODEL
    return " ".join([command, *(f"{flag} {value}" for flag, value in flags.items() if flag[2:] not in command)])


def _fewer(steps: int) -> int:
    return max(1, steps // (10 if steps < 100 else 50))


@dataclass(frozen=True)
class Reader:
    """Somebody who types commands in a folder."""

    folder: Path
    cache: Path

    def run(self, command: str) -> str:
        """Run a command; what it prints. Plain `tokenloom` runs in this process, which saves a start.

        Of a pipe, the part before `tokenloom` runs in a shell.
        """
        before, pipe, last = command.rpartition(" | ")
        if last.startswith("tokenloom ") and not SHELL_SYNTAX.search(QUOTED_ARGUMENT.sub("", last)):
            return self._run_here(shlex.split(last)[1:], self.run_in_shell(before) if pipe else "")
        return self.run_in_shell(command)

    def run_in_shell(self, command: str) -> str:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(Path(tokenloom.__file__).parent.parent),
            "TOKENLOOM_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
        }
        result = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert result.returncode == 0, f"{command}\n{result.stderr}"
        return result.stdout

    def run_python(self, snippet: str) -> str:
        """Run a Python snippet in this process; its stdout."""
        snippet = re.sub(r'"max_steps": (\d+)', lambda found: f'"max_steps": {_fewer(int(found[1]))}', snippet)
        snippet = snippet.replace('settings={"train"', f'settings={SMALL_SETTINGS!r} | {{"train"')
        with self._here() as printed:
            exec(compile(snippet, "snippet", "exec"), {})
        return printed.getvalue()

    def _run_here(self, arguments: list[str], text: str) -> str:
        with self._here(text) as printed, contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 0, f"tokenloom {shlex.join(arguments)}\n{printed.getvalue()}"
        return printed.getvalue()

    @contextlib.contextmanager
    def _here(self, text: str = "") -> Iterator[io.StringIO]:
        """This process in the folder, with `text` on stdin, and stdout as what is printed."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # faster for models of this size
        try:
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
                patch.chdir(self.folder)
                patch.setenv("TOKENLOOM_CACHE", str(self.cache))
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8"))))
                # More than half of the time of a run of two steps; all have tests of their own.
                patch.setattr(search, "plot_search", lambda *_: None)
                patch.setattr(automatic, "PROBE_SHARE", 0)
                patch.setattr(budget, "TIMING_SHARE", 0)
                for module in (corpora, sources):
                    patch.setattr(module, "standard_library_files", _some_library_files)
                patch.setattr(budget, "process_start", time.time)  # that of the command, not of pytest
                yield printed
        finally:
            torch.set_num_threads(threads)


@functools.cache
def _some_library_files() -> list[Path]:
    """A sixteenth of the standard library, which is read in a moment."""
    return LIBRARY_FILES()[::16]
