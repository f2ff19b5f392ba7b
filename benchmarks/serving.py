"""Tokens per second of the server for several streams at a time, next to llama.cpp's server, and what an idle server
costs a run that trains: each finished case is a line of benchmarks/data/serving.jsonl.

    python benchmarks/serving.py                        # 10 minutes at most; cases that are recorded are not repeated
    python benchmarks/serving.py --llama /tmp/llama     # pip install --no-deps --target /tmp/llama xllamacpp
    python benchmarks/serving.py --shapes small --streams 1 4 --parts tokens

Both servers get the same random weights, as a folder and as GGUF files in f32 and f16, and as many threads as there are
cores. Streams request 64 tokens, greedy, again and again, over HTTP. llama.cpp's own server has a slot for each stream
(llama_server.py). The idle server serves the run that trains, and is suspended in every other turn, in which a step is
timed (turns.py). Prints the tables; the exit code is 1 if a case failed. Stop other work on the machine before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import records
import streams as client
from turns import START_SECONDS, StepTimes, compare_turns

LLAMA_SERVER = Path(__file__).with_name("llama_server.py")
DATA = records.DATA / "serving.jsonl"
SHAPES = {
    "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 128},
    "small": {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256},
    "124M": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024},
}
PARTS = ("tokens", "training")
SERVERS = ("Tokenloom f32", "llama.cpp f32", "llama.cpp f16")
STREAMS = (1, 4, 16, 64)
PROMPT = "Every effort moves you"
TOKENS = 64
TOKEN = " forward"  # the only token that the models generate
WARMUP = 1.5  # seconds
TRAINING_FLAGS = {
    "tokenizer": "byte",
    "train.max-steps": 1_000_000,
    "train.log-interval": 1,
    "train.eval-interval": 1_000_000,
    "train.save-interval": 1_000_000,
    "sample.max-new-tokens": 0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=("small", "124M"))
    parser.add_argument("--streams", nargs="*", type=int, default=STREAMS)
    parser.add_argument("--llama", help="folder with xllamacpp, put into PYTHONPATH")
    parser.add_argument("--windows", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--seconds", type=float, default=3, help="of a window")
    parser.add_argument("--rounds", type=int, default=12, help="of two turns, without and with an idle server")
    parser.add_argument("--turn", type=float, default=5, help="seconds of a turn")
    parser.add_argument("--minutes", type=float, default=10, help="start no case that would end later")
    parser.add_argument("--results", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    session = Session(options.results, time.monotonic() + 60 * options.minutes)
    if "training" in options.parts:
        seconds = options.rounds * 2 * options.turn + 30
        session.measure({"part": "training"}, seconds, lambda: measure_training(options.rounds, options.turn))
    if "tokens" in options.parts:
        servers = SERVERS if has_llama(options.llama) else SERVERS[:1]
        if servers != SERVERS:
            print("llama.cpp: skipped, since xllamacpp cannot be imported. See --llama.", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            for shape in options.shapes:
                export_models(shape, Path(folder, shape))
                for name in servers:
                    measure_server(session, shape, name, Path(folder, shape), options)
    print("\n\n".join("\n".join(lines) for lines in tables(records.read(options.results))))
    return session.exit_code


@dataclass
class Session:
    """Measures cases that are not recorded yet, until the time is over."""

    results: Path
    end: float
    exit_code: int = 0

    def is_due(self, case: dict, seconds: float) -> bool:
        """Whether a case is not recorded for this machine and commit, and there is time for it."""
        if any(run.items() >= (case | records.origin()).items() for run in records.read(self.results)):
            return False
        if time.monotonic() + seconds > self.end:
            print(f"{case}: left out, because it takes about {seconds:.0f} s", file=sys.stderr, flush=True)
            return False
        return True

    def measure(self, case: dict, seconds: float, work: Callable[[], dict]) -> None:
        """Record what `work` gives for a case, if it is due."""
        if not self.is_due(case, seconds):
            return
        try:
            line = case | work() | records.origin() | {"date": records.today()}
        except RuntimeError as error:
            self.exit_code = 1
            print(f"{case} failed: {error}", file=sys.stderr, flush=True)
            return
        records.write(self.results, line)
        print(json.dumps(line), file=sys.stderr, flush=True)


def measure_server(session: Session, shape: str, name: str, folder: Path, options: argparse.Namespace) -> None:
    """A server with each number of streams."""
    seconds = WARMUP + options.windows * options.seconds + 5
    cases = [{"part": "tokens", "shape": shape, "server": name, "streams": streams} for streams in options.streams]
    due = [case for case in cases if session.is_due(case, seconds)]
    if not due:
        return
    with started(name, folder, SHAPES[shape]["block_size"], options) as server:
        for case in due:
            session.measure(case, seconds, partial(tokens_per_second, server, case["streams"], options))


def tokens_per_second(server: tuple[subprocess.Popen, int], streams: int, options: argparse.Namespace) -> dict:
    """The median of several windows, and their range."""
    process, port = server
    wait_until_it_answers(process, port)
    rates = client.measure_streams(
        port,
        {"prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0},
        streams,
        token_length=len(TOKEN),
        windows=options.windows,
        seconds=options.seconds,
        warmup=WARMUP,
    )
    return {
        "tokens_per_sec": round(statistics.median(rates), 1),
        "lowest": round(min(rates), 1),
        "highest": round(max(rates), 1),
    }


def export_models(shape: str, folder: Path) -> None:
    """The same random weights for all servers, with which `TOKEN` is always the most likely token.

    The final layer norm gives the embedding of that token, whatever its input is.
    """
    import torch

    import tokenloom as tl
    from tokenloom.config import Config
    from tokenloom.model import build
    from tokenloom.weights.load import LoadedModel

    tokenizer = tl.load_tokenizer("gpt2")
    config = Config.of({"model": {"family": "gpt2", "vocab_size": tokenizer.vocab_size, **SHAPES[shape]}}).model
    model = build(config, torch.Generator().manual_seed(1))
    [token] = tokenizer.encode(TOKEN)
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(100 * model.wte.weight[token])
    loaded = LoadedModel(model.eval(), tokenizer, Path())
    folder.mkdir()
    tl.export(loaded, folder / "model")
    for quantization in ("f32", "f16"):
        tl.export(loaded, folder / f"{quantization}.gguf", quantization=quantization)


def has_llama(folder: str | None) -> bool:
    """Whether llama.cpp can be imported, in a process of its own."""
    check = [sys.executable, "-c", "import xllamacpp"]
    return subprocess.run(check, env=environment(folder), capture_output=True).returncode == 0


def environment(folder: str | None = None) -> dict[str, str]:
    """The environment of a command that imports this checkout's package, and packages in a folder."""
    paths = [str(records.ROOT / "src"), folder, os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@contextlib.contextmanager
def started(
    name: str, folder: Path, context: int, options: argparse.Namespace
) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server in a process of its own, and its port."""
    port = free_port()
    cores = len(psutil.Process().cpu_affinity() or [])
    if name.startswith("llama.cpp"):
        command = f"{LLAMA_SERVER} {folder / name.split()[1]}.gguf --port {port} --streams {max(options.streams)}"
        command += f" --context {context} --threads {cores}"
    else:
        command = f"-m tokenloom serve {folder / 'model'} --port {port}"
    with running([sys.executable, *command.split()], options.llama) as process:
        yield process, port


@contextlib.contextmanager
def running(command: Sequence[str], packages: str | None = None, cwd: Path | None = None) -> Iterator[subprocess.Popen]:
    """A process that is stopped at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment(packages), cwd=cwd)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_until_it_answers(process: subprocess.Popen, port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def measure_training(rounds: int, turn: float) -> dict:
    """Seconds of a training step of the default shape, next to an idle server of the run and to a suspended one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        letters = random.Random(1)
        (folder / "text.txt").write_text("".join(letters.choices("abcdefgh \n", k=1 << 20)), encoding="utf-8")
        run, command = folder / "runs" / "run", [sys.executable, "-m", "tokenloom"]
        flags = [f"--{name}={value}" for name, value in TRAINING_FLAGS.items()]
        train = [*command, "train", "text.txt", "--out", str(run), *flags]
        port = free_port()
        serve = [*command, "serve", "--runs", str(folder / "runs"), "--port", str(port)]
        with running(train, cwd=folder) as process, running(serve) as server:
            steps = StepTimes(run / "metrics.jsonl", process)
            steps.wait_for(5)
            wait_until_it_answers(server, port)
            idle = psutil.Process(server.pid)
            with measured_cpu(idle) as cpu:
                result = compare_turns(steps, lambda is_on: idle.resume() if is_on else idle.suspend(), rounds, turn)
            idle.resume()  # so that it can end
        return result | {"cpu": round(cpu[0] / (rounds * turn), 4)}


@contextlib.contextmanager
def measured_cpu(process: psutil.Process) -> Iterator[list[float]]:
    """A list to which the CPU seconds are added that the process uses meanwhile."""
    used, before = list[float](), sum(process.cpu_times()[:2])
    yield used
    used.append(sum(process.cpu_times()[:2]) - before)


def tables(runs: Sequence[dict]) -> list[list[str]]:
    """The newest figures of each machine as Markdown tables: tokens per second, and seconds of a training step."""
    newest = {
        (run["machine"], run["part"], run.get("shape"), run.get("server"), run.get("streams")): run for run in runs
    }
    lines: list[list[str]] = []
    for machine in sorted({run["machine"] for run in newest.values()}):
        mine = [run for run in newest.values() if run["machine"] == machine]
        tokens = [run for run in mine if run["part"] == "tokens"]
        counts = sorted({run["streams"] for run in tokens})
        for shape in [shape for shape in SHAPES if any(run["shape"] == shape for run in tokens)]:
            rows = [
                ["tokens/s", *(f"{count} stream{'s' * (count > 1)}" for count in counts)],
                ["---"] * (1 + len(counts)),
            ]
            for server in SERVERS:
                cells = {r["streams"]: r for r in tokens if (r["shape"], r["server"]) == (shape, server)}
                texts = [f"{cells[count]['tokens_per_sec']:,.0f}" if count in cells else "" for count in counts]
                rows += [[server, *texts]] if cells else []
            lines.append([f"{shape} ({origin(machine, tokens)})", "", *map(row, rows)])
        for run in mine:
            if run["part"] == "training":
                steps = [f"{1e3 * run[key]:.1f} ms" for key in ("step_seconds", "step_seconds_beside")]
                rows = [
                    ["a training step", "beside an idle server", "cost", "its quartiles", "CPU of a core"],
                    ["---"] * 5,
                    [
                        *steps,
                        f"{run['cost']:+.1%}",
                        "{:+.1%} to {:+.1%}".format(*run["cost_quartiles"]),
                        f"{run['cpu']:.1%}",
                    ],
                ]
                lines.append([f"Training ({origin(machine, [run])})", "", *map(row, rows)])
    return lines


def origin(machine: str, runs: Sequence[dict]) -> str:
    commits = ", ".join(dict.fromkeys(run["commit"] for run in runs))
    return f"{machine}; commit {commits}, {max(run['date'] for run in runs)}"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
