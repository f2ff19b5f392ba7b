"""Generated calls of the command line: none shows a traceback, hangs, or changes a file outside of `--out`.

Every call is a function of its number. The failure of a call names it; TOKENLOOM_FUZZ=NUMBER, or FIRST:LAST, makes the
slow test repeat it.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import command_line, train_small_run
from odd_files import ESCAPES, copy_of, damage, write_odd_files

from tokenloom.cli.main import main
from tokenloom.cli.streams import standard_streams

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="FIFOs, signals and closed descriptors of POSIX"),
    pytest.mark.filterwarnings("ignore"),  # they are printed, and do not stop a command
]

SEED = 14
SHORT_CALLS, SHORT_PROCESSES = 100, 2
STAGES, STAGE_CALLS, STAGE_PROCESSES = 10, 190, 10  # of the slow test: 2,000 calls
LIMIT = 60  # seconds, for a call that takes less than one on an idle machine

SMALL = ["--train.max-steps", "2", "--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16"]
SMALL += ["--model.block-size", "16", "--train.batch-size", "2", "--sample.max-new-tokens", "0"]
WORDS = [
    "",
    "-",
    "--",
    "-1",
    "x",
    "é語",
    ESCAPES,
    "\udcff",
    "a" * 3000,
    "~nosuchuser/x",
    "[",
    "{}",
    "a\nb",
    "None",
    "*",
]
NUMBERS = ["0", "1", "2", "-1", "2.7", "nan", "inf", "-inf", "1e999", "1e-320", "9" * 30, "x", "", "0x10", "1_0", "١"]
COUNTS = ["0", "1", "2", "3", "-1", "2.7", "x", "", "١"]  # without numbers that only take long
TEXT_FLAGS = {"--text": [*WORDS, "all work", "語" * 40, "a" * 2000], "--top": COUNTS, "--context": NUMBERS}
FLAGS = {
    "generate": {
        "--prompt": [*WORDS, "all work"],
        "--max-new-tokens": COUNTS,
        "--num-samples": COUNTS,
        "--stop": WORDS,
        "--seed": NUMBERS,
        "--temperature": NUMBERS,
        "--top-k": NUMBERS,
        "--top-p": NUMBERS,
        "--presence-penalty": NUMBERS,
        "--frequency-penalty": NUMBERS,
        "--logprobs": NUMBERS,
        "--quantize": ["int8", "int4", ""],
        "--device": ["cpu", "gpu", ""],
        "--precision": ["fp32", "bf16", "fp64"],
    },
    "evaluate": {
        "--context": NUMBERS,
        "--stride": COUNTS,
        "--batch-size": COUNTS,
        "--data.text-key": WORDS,
        "--data.encoding-errors": ["strict", "replace", ""],
        "--precision": ["fp32", "bf16", "auto"],
    },
    "inspect": {**TEXT_FLAGS, "--stride": COUNTS},
    "compare": {**TEXT_FLAGS, "--words": COUNTS},
    "info": {},
    "runs": {"--diff": WORDS},
    "export": {
        "--format": ["hf", "gguf", "pth", "book", "x", ""],
        "--quantization": ["f16", "q8_0", "x"],
        "--license": WORDS,
    },
    "prepare": {
        "--tokenizer": ["char", "byte", "gpt2", "bpe:300", "bpe:0", "bpe:x", "", "null.json", "deep.json", ESCAPES],
        "--val-fraction": NUMBERS,
        "--add-token": WORDS,
        "--workers": ["1", "0", "-1", "x"],
        "--data.text-key": WORDS,
    },
    "plan": {
        "--ranks": ["2", "2x4", "0", "x", "-1", "9" * 18, ""],
        "--memory": ["8GB", "1kB", "0GB", "nan", ""],
        "--preset": ["modern-xs", "gpt2-124m", "x", ESCAPES],
        "--config": ["odd.toml", "types.toml", "missing.toml"],
        "--tokenizer": ["char", "byte", "bpe:300", "bpe:x", "", "null.json"],
        "--train.batch-size": COUNTS,
        "--train.micro-batch-size": COUNTS,
        "--strategy": ["ddp", "fsdp", "x"],
        "--precision": ["fp32", "bf16", "fp16", "x"],
        "--model.n-embd": ["16", "0", "7"],
    },
    "train": {
        "--tokenizer": ["char", "byte", "bpe:300", "", "deep.json"],
        "--preset": ["modern-xs", "x", ESCAPES],
        "--config": ["odd.toml", "binary.toml", "types.toml", "deep.toml", "fifos", "missing.toml"],
        "--train.learning-rate": NUMBERS,
        "--train.seed": NUMBERS,
        "--model.dropout": NUMBERS,
        "--model.n-embd": ["16", "0", "-2", "7", "9" * 18],
        "--model.n-head": COUNTS,
        "--model.family": ["gpt2", "modern", "x"],
        "--train.eval-interval": COUNTS,
        "--init-from": ["run", "hf", "nothing", "missing"],
        "--budget": ["x", "-1s", "0s", ""],
        "--prompt": WORDS,
    },
}
# What a call may write, and what is created for a call.
WRITTEN = {"out", "out.pth", "out.gguf", "missing", "vacant", "runs", "damaged", "damaged.pth", "damaged.gguf"}
ORIGINALS = ["run", "hf", "model.gguf", "model.pth", "shards"]


@dataclass
class Call:
    """One call of the command line, and the circumstances of it."""

    number: int
    argv: list[str]
    stdin: bytes | None
    encoding: str | None
    """Of stdout; None if it is closed."""
    environment: dict[str, str | None] = field(default_factory=dict)
    damaged: str = ""

    def __str__(self) -> str:
        changes = " ".join(f"{name}={value}" for name, value in self.environment.items())
        line = f"{self.number}: {changes} tokenloom {shlex.join(self.argv)}  stdin={self.stdin!r:.40} {self.encoding}"
        return f"{line}  after: {self.damaged}".encode("utf-8", "backslashreplace").decode()


@dataclass
class Workspace:
    """The folder in which commands run."""

    root: Path
    names: list[str]

    def make_call(self, number: int) -> Call:
        """The call of this number. What it needs besides the odd files is created."""
        choices = random.Random(f"{SEED} {number}")
        command = choices.choice([*FLAGS, "evaluate", "generate", "inspect", "prepare", "train"])
        damaged, subject = "", choices.choice(ORIGINALS)
        if command == "train":  # which may resume it
            subject = "damaged"
            copy_of(self.root / "run", self.root / subject)
        elif choices.random() < 0.5:
            subject = "damaged" + Path(subject).suffix
            original = ORIGINALS[[Path(one).suffix for one in ORIGINALS].index(Path(subject).suffix)]
            if not Path(subject).suffix:
                original = choices.choice(["run", "run", "hf", "hf", "shards"])
            copy_of(self.root / original, self.root / subject)
        if subject.startswith("damaged") and choices.random() < 0.9:
            damaged = ", ".join(damage(self.root / subject, choices) for _ in range(choices.choice([1, 1, 1, 2])))
        argv = self._arguments(choices, command, subject)
        stdin = choices.choice([b"", None, b"all work and no play " * 20, b"\xff\xfe\0", ESCAPES.encode()])
        encoding = choices.choice(["utf-8", "utf-8", "ascii", "cp1252", None])
        variables = {
            "HOME": [str(self.root.parent / "home"), None, "", "/nonexistent", "relative"],
            "COLUMNS": ["0", "-1", "1", "x", "10000"],
            "NO_COLOR": ["1"],
            "TERM": ["dumb", "", "x"],
            "LC_ALL": ["C", "x"],
        }
        chosen = choices.sample(sorted(variables), choices.choice([0, 0, 0, 1, 2]))
        environment = {name: choices.choice(variables[name]) for name in chosen}
        return Call(number, argv, stdin, encoding, environment, damaged)

    def _arguments(self, choices: random.Random, command: str, subject: str) -> list[str]:
        model = subject if choices.random() < 0.7 else choices.choice([*self.names, *WORDS, "run@best", "run@step-x"])
        text = choices.choice(
            [*self.names, "text.txt", "text.txt", "-", "*.txt", "**", ".", "hf:./tree", "tree", *WORDS]
        )
        if text == "fifo.txt":  # named as a text, a pipe that nobody writes to is waited for, as by every program
            text = "text.txt"
        out = ["--out", choices.choice(["out", "out", "out", "out", "text.txt", "tree", "vacant", "missing/out"])]
        positional = {
            "generate": [model],
            "evaluate": [model, text] if choices.random() < 0.8 else [model],
            "inspect": [model, text] if choices.random() < 0.7 else [model],
            "compare": [model, "run", text] if choices.random() < 0.7 else ["run", model],
            "info": [model],
            "runs": [model] if choices.random() < 0.7 else [".", "--diff", "run", model],
            "export": [model, choices.choice(["out", "out.pth", "out.gguf", "text.txt"])],
            "plan": [],
            "prepare": [text, *out],
            "train": [text, *SMALL, *out] if choices.random() < 0.8 else ["--resume", subject],
        }[command]
        if command == "train" and "--resume" in positional:
            positional += ["--train.max-steps", "3"]
        if command == "generate":
            positional += ["--max-new-tokens", "3"]
        flags = FLAGS[command]
        for name in choices.sample(sorted(flags), min(len(flags), choices.choice([0, 0, 1, 1, 2, 3]))):
            if name in positional:
                continue
            value = choices.choice(flags[name])
            positional += [f"{name}={value}"] if choices.random() < 0.5 else [name, value]
        noise = ["--json"] * (choices.random() < 0.3) + [choices.choice(["--x", "-h", "", "--", "y"])] * (
            choices.random() < 0.05
        )
        return [command, *positional, *noise]

    def clean_up(self) -> None:
        """Remove what the last call created."""
        for name in WRITTEN:
            path = self.root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (self.root / "vacant").mkdir()

    def snapshot(self) -> dict[str, object]:
        """Everything in the folder except what a command may write."""
        found: dict[str, object] = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.root:
                folders[:] = [one for one in folders if one not in WRITTEN]
                files = [one for one in files if one not in WRITTEN]
            for name in [*folders, *files]:
                path = Path(folder, name)
                if path.is_symlink():
                    found[str(path)] = os.readlink(path)
                elif path.is_file():
                    found[str(path)] = hashlib.blake2b(path.read_bytes()).digest()
                else:
                    found[str(path)] = path.stat().st_mode
        return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[Workspace]:
    top = tmp_path_factory.mktemp("fuzz")
    root = top / "work"
    root.mkdir()
    (top / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(top / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(top / "huggingface"))
        patch.chdir(root)
        train_small_run(root, "bpe:280")
        for name in ("report.html", "loss.png", "loss.pdf"):
            (root / "run" / name).unlink()
        for argv in (
            ["export", "run", "hf"],
            ["export", "run", "model.gguf"],
            ["export", "run", "model.pth"],
            ["prepare", "text.txt", "--tokenizer", "char", "--out", "shards"],
        ):
            with contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as exit_info:
                main(argv)
            assert exit_info.value.code == 0, argv
        yield Workspace(root, write_odd_files(root))
        (root / "unreadable.txt").chmod(0o600)


def test_generated_calls(workspace, monkeypatch):
    check_calls(workspace, monkeypatch, range(SHORT_CALLS))


def test_generated_calls_as_processes(workspace):
    check_processes(workspace, range(SHORT_PROCESSES))


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("stage", range(STAGES))
def test_many_generated_calls(workspace, monkeypatch, stage):
    if "TOKENLOOM_FUZZ" in os.environ:
        first, _, last = os.environ["TOKENLOOM_FUZZ"].partition(":")
        check_calls(workspace, monkeypatch, range(int(first), int(last or first) + 1))
        return
    check_calls(workspace, monkeypatch, range(stage * STAGE_CALLS, (stage + 1) * STAGE_CALLS))
    check_processes(workspace, range(stage * STAGE_PROCESSES, (stage + 1) * STAGE_PROCESSES))


def check_calls(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, numbers: Sequence[int]) -> None:
    """Run calls in this process."""
    problems: list[str] = []
    for number in numbers:
        workspace.clean_up()
        call = workspace.make_call(number)
        before = workspace.snapshot()
        with monkeypatch.context() as patch:
            code, output, errors, seconds = run_here(call, patch)
        found = problems_of(call, code, output, errors)
        found += [f"took {seconds:.0f} s"] if seconds > LIMIT else []
        after = workspace.snapshot()
        found += [f"changed {name}" for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        if found:
            problems.append(f"{call}\n  {'; '.join(found)}\n  {errors[-1500:]}")
    workspace.clean_up()
    assert not problems, f"{len(problems)} of {len(numbers)} calls:\n" + "\n".join(problems)


def run_here(call: Call, patch: pytest.MonkeyPatch) -> tuple[object, str | None, str, float]:
    """Exit code, stdout (None if closed), stderr and seconds of a call in this process."""
    for name, value in call.environment.items():
        if value is None:
            patch.delenv(name, raising=False)
        else:
            patch.setenv(name, value)
    output, errors = io.BytesIO(), io.BytesIO()
    patch.setattr(sys, "stdin", None if call.stdin is None else io.TextIOWrapper(io.BytesIO(call.stdin)))
    patch.setattr(sys, "stdout", call.encoding and io.TextIOWrapper(output, encoding=call.encoding))
    patch.setattr(sys, "stderr", io.TextIOWrapper(errors, encoding="utf-8"))
    start = time.monotonic()
    signal.alarm(LIMIT)  # interrupts the command, which then exits with 142
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with standard_streams():
            main(call.argv)
    except SystemExit as stop:
        code = stop.code
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    text = output.getvalue().decode(call.encoding, "replace") if call.encoding else None
    return code, text, errors.getvalue().decode("utf-8", "replace"), time.monotonic() - start


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def check_processes(workspace: Workspace, numbers: Sequence[int]) -> None:
    """Run calls as processes, some with closed descriptors, and stop some by a signal."""
    problems: list[str] = []
    for number in numbers:
        workspace.clean_up()
        call = workspace.make_call(10_000 + number)
        call.argv = [one for one in call.argv if "\0" not in one]
        choices = random.Random(f"{SEED} process {number}")
        redirect = choices.choice(
            ["", "<&-", ">&-", "2>&-", ">/dev/full", "2>/dev/full", "<&- >&- 2>&-", "| head -c 9"]
        )
        before = workspace.snapshot()
        environment = {
            **os.environ,
            "PYTHONIOENCODING": choices.choice(["ascii", "cp1252", "utf-8"]),
            **call.environment,
        }
        process = subprocess.Popen(
            command_line(call.argv, redirect),
            env={name: value for name, value in environment.items() if value is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        stop = choices.choice([None, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        if stop and "|" not in redirect:
            time.sleep(choices.uniform(0.3, 4))
            process.send_signal(stop)
        try:
            errors = process.communicate(call.stdin, timeout=LIMIT)[1].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            process.kill()
            problems.append(f"{call} {redirect} {stop}: took {LIMIT} s")
            continue
        # On a busy machine the signal can arrive before the interpreter runs any code of ours.
        codes = {0, 1, 2} | ({128 + stop, -stop} if stop else set())
        found = problems_of(call, process.returncode, None, errors, codes)
        after = workspace.snapshot()
        found += [f"changed {name}" for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
        if found:
            problems.append(f"{call} {redirect} {stop}\n  {'; '.join(found)}\n  {errors[-1500:]}")
    workspace.clean_up()
    assert not problems, f"{len(problems)} of {len(numbers)} processes:\n" + "\n".join(problems)


def problems_of(
    call: Call, code: object, output: str | None, errors: str, codes: frozenset[int] | set[int] = frozenset((0, 1, 2))
) -> list[str]:
    """What is wrong with the result of a call."""
    found: list[str] = []
    if code not in codes:
        found.append(f"exit code {code}")
    if "Traceback" in errors or "Exception ignored" in errors:
        found.append("traceback")
    if "unexpected error" in errors:
        found.append("unforeseen error")
    if code in (1, 2) and errors and not errors.splitlines()[-1].startswith("tokenloom: "):
        found.append("the last line of stderr is no message")
    if any(character in errors for character in "\x1b\x07\x9b\u202e"):
        found.append("control characters on stderr")
    if output is not None and call.argv[0] != "generate" and any(one in output for one in "\x1b\x07\x9b\u202e"):
        found.append("control characters on stdout")
    if output and code == 0 and "--json" in call.argv and "-h" not in call.argv:
        try:
            json.loads(output, parse_constant=lambda name: pytest.fail(name))
        except ValueError:
            found.append(f"no JSON: {output[:100]!r}")
    return found
