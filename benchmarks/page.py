"""What the page costs: a long run is opened and scrubbed, a text is drawn, and a training is followed.

    python benchmarks/page.py --minutes 20    # again, until nothing is left: 20 minutes in all

A run of 100,000 records is opened by a new server and a new browser, until its curves are drawn. The cursor is moved
over them, one position a frame. A text of 1,024 tokens is drawn in Read, from the reply of the server until the browser
has drawn it. A model trains, and the page follows it in every other turn of six seconds; a client that asks for what
the page asks for takes the place of the browser, whose drawing is not the server's work. Each is done in several
rounds; a finished one is a record in data/results.jsonl, and is not repeated at this commit. Prints a table. Needs
Chromium and playwright.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import httpx2
import psutil
import records
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from result_tables import page_table
from turns import StepTimes, compare_turns

from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config, ModelConfig
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.metrics import MetricsRecord
from tokenloom.model.gpt2 import GPT2
from tokenloom.run_folder import JsonlWriter, RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.serving.models import ModelStore
from tokenloom.serving.page_process import PageProcess
from tokenloom.serving.server import Server
from tokenloom.weights.checkpoint import save_checkpoint

RECORDS, TOKENS = 100_000, 1024
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TRAINING = (
    "python-docs --model.n-layer 4 --model.n-head 4 --model.n-embd 128 --model.block-size 128 --tokenizer bpe:2048 "
    "--train.batch-size 8 --train.max-steps 1000000 --train.log-interval 1 --train.eval-interval 1000000 "
    "--train.eval-batches 4 --no-compile --sample.max-new-tokens 50 --device cpu --json"
)
TURN_SECONDS = 6.0
INTERVAL = 2.0  # seconds between two looks of the page at the runs
ROUND_SECONDS = {"browser": 60, "training": 120}  # at most

# Each waits for a frame in which something is drawn, and gives its time in ms since the page was asked for.
DRAWN = """() => document.querySelector(".plot canvas") && document.querySelector("dl.readout [data-key]")
  ? performance.now() : false"""
READ = """count => document.querySelectorAll(".tokens .token").length >= count ? performance.now() : false"""
REPLIED = """() => performance.getEntriesByType("resource")
  .findLast((entry) => entry.name.endsWith("/api/inspect")).responseEnd"""
SCRUB = """async (frames) => {
  const over = document.querySelector(".plot .u-over");
  const { left, top, width } = over.getBoundingClientRect();
  const times = [];
  let before = await new Promise(requestAnimationFrame);
  for (let frame = 0; frame < frames; frame += 1) {
    const clientX = left + (width * (frame + 1)) / (frames + 1);
    const place = { bubbles: true, clientX, clientY: top + 20, pointerType: "mouse" };
    over.dispatchEvent(new PointerEvent("pointermove", place));
    const now = await new Promise(requestAnimationFrame);
    times.push(now - before);
    before = now;
  }
  return times;
}"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=6, help="of a training, without and with a page that follows it")
    parser.add_argument("--minutes", type=float, default=20, help="start no round that would end later")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        measurements = {
            "browser": partial(browser_rows, Path(folder, "runs")),
            "training": partial(training_rows, Path(folder), options.turns),
        }
        measure_missing(measurements, options.rounds, time.time() + 60 * options.minutes)
    print("\n".join(page_table(records.measured("page"))))


def measure_missing(measurements: Mapping[str, Callable[[], Iterable[dict]]], rounds: int, end: float) -> None:
    """Record the rounds that this commit lacks, as long as one ends before `end` (`time.time`)."""
    for name, measurement in measurements.items():
        finished = sum(result["measurement"] == name for result in records.measured("page"))
        for number in range(finished + 1, rounds + 1):
            if time.time() + ROUND_SECONDS[name] > end:
                print(f"{name}, round {number}: left out, because no time is left", file=sys.stderr, flush=True)
                break
            records.append("page", {"measurement": name, "rows": [*measurement()]})
            print(f"{name}, round {number}: finished", file=sys.stderr, flush=True)


def write_runs(runs: Path) -> None:
    """A run with a model, and one with many records."""
    tokenizer = load_tokenizer("byte")
    config = ModelConfig(
        family="gpt2", vocab_size=tokenizer.vocab_size, block_size=TOKENS, n_layer=2, n_head=2, n_embd=32
    )
    for name in ("model", "long"):
        run = RunFolder(runs / name)
        run.path.mkdir(parents=True)
        run.write_config(Config())
        run.write_identity(RunIdentity(dataset="d", tokenizer="t", model={}, seed=1, order=[], optimizer="muon"))
    model = GPT2(config, torch.Generator().manual_seed(1))
    save_checkpoint(RunFolder(runs / "model").checkpoints, 1, model, tokenizer, state={})
    log = JsonlWriter(RunFolder(runs / "long").metrics_file)
    for step in range(1, RECORDS + 1):
        log.write(record(step).to_json())
    log.close()


def record(step: int) -> MetricsRecord:
    """A record with every metric; each hundredth has validation figures too."""
    loss = 3 + 6 * math.exp(-step / 20_000) + 0.1 * math.sin(step)
    validation = {"val_loss": loss, "val_perplexity": math.exp(loss), "val_bits_per_byte": loss / 3, "val_share": 0.25}
    return MetricsRecord(
        step=step,
        tokens=4096 * step,
        epoch=step / 777,
        seconds=step / 7,
        train_loss=loss,
        lr=1e-3 / step,
        muon_lr=2e-2 / step,
        grad_norm=abs(math.sin(step)),
        tokens_per_sec=4096 * 7.1,
        mfu=0.31,
        **(validation if step % 100 == 0 else {}),
    )


def browser_rows(runs: Path) -> Iterator[dict]:
    """The times of the page in a new browser."""
    if not runs.exists():
        write_runs(runs)
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        with new_page(browser, runs, "#/runs?run=long") as page:
            opened = page.wait_for_function(DRAWN, polling="raf").json_value()
            page.wait_for_timeout(1000)
            frames = page.evaluate(SCRUB, 120)
        with new_page(browser, runs, "#/read?m=model") as page:
            page.locator("textarea").fill(("Every effort moves you. " * TOKENS)[:TOKENS])
            drawn = page.wait_for_function(READ, arg=TOKENS, polling="raf").json_value() - page.evaluate(REPLIED)
        browser.close()
    yield row(f"open a run of {RECORDS:,} records", [opened], "ms", 2000)
    yield row("a frame while the cursor moves over it", frames, "ms", 1000 / 30)
    yield row(f"draw a text of {TOKENS:,} tokens", [drawn], "ms", 300)


@contextlib.contextmanager
def new_page(browser: Browser, runs: Path, hash: str) -> Iterator[Page]:
    """The page of a new server in a new browser profile."""
    store = ModelStore((), runs, 10**9, runtime=choose_runtime("cpu", "fp32"))
    with Server(store, host="127.0.0.1", port=0) as server:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(f"{server.url}/{hash}", wait_until="commit")
        yield page
        context.close()


def training_rows(folder: Path, turns: int) -> Iterator[dict]:
    """What the page costs a training: CPU time of its process, and the time of a step while the run is followed."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        run = Path(name, "run")
        command = [sys.executable, "-m", "tokenloom", "train", *TRAINING.split(), "--out", str(run)]
        environment = os.environ | {"TOKENLOOM_CACHE": str(folder / "cache")}
        shares: dict[bool, list[float]] = {False: [], True: []}
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            try:
                with PageProcess(run.parent) as page, following(page.url(), run.name) as is_followed:
                    steps = StepTimes(RunFolder(run).metrics_file, process)
                    steps.wait_for(5)
                    cpu = CpuShares(page_process(), shares)

                    def switch(is_on: bool) -> None:
                        cpu.turn(is_on)
                        (is_followed.set if is_on else is_followed.clear)()

                    costs = compare_turns(steps, switch, turns, TURN_SECONDS)["costs"]
            finally:
                process.terminate()
    yield row("CPU of the page while nobody looks, of one core", shares[False], "%", 2)
    yield row("CPU of the page while a run is followed, of one core", shares[True], "%", 2)
    yield row("time that a training step takes longer while it is followed", [100 * cost for cost in costs], "%", 2)


@contextlib.contextmanager
def following(url: str, run: str) -> Iterator[threading.Event]:
    """A thread that asks for what the page asks for, while the event is set."""
    is_followed, is_over = threading.Event(), threading.Event()

    def follow() -> None:
        with httpx2.Client(base_url=url, timeout=60) as http:
            poll = poller(http, run)
            while is_followed.wait() and not is_over.wait(INTERVAL):
                poll()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield is_followed
    finally:
        is_over.set()
        is_followed.set()
        thread.join()


def poller(http: httpx2.Client, name: str) -> Callable[[], None]:
    """What the page does every two seconds (main.js, run_feed.js)."""
    cursors = dict.fromkeys(("records", "samples"), "0.0.0")
    known: dict[str, object] = {}

    def poll() -> None:
        row = next(row for row in http.get("/api/runs").json()["runs"] if row["run"] == name)
        if changed("models", [row["state"], row["checkpoint"], row["best_step"]]):
            http.get("/api/models")
        for kind, cursor in cursors.items():
            cursors[kind] = http.get(f"/api/runs/{name}/{kind}", params={"cursor": cursor}).json()["cursor"]
        if changed("files", [row["state"], row["checkpoint"], row["best_step"], row["val_loss"]]):
            http.get(f"/api/runs/{name}")

    def changed(what: str, version: object) -> bool:
        before, known[what] = known.get(what), version
        return before != version

    return poll


def page_process() -> psutil.Process:
    """The process of the page, which this one has started."""
    return next(one for one in psutil.Process().children() if "page_process" in " ".join(one.cmdline()))


class CpuShares:
    """CPU time of a process in each turn, in percent of the time that has passed."""

    def __init__(self, process: psutil.Process, shares: dict[bool, list[float]]) -> None:
        self._process = process
        self._shares = shares
        self._turn: tuple[bool, float, float] | None = None

    def turn(self, is_on: bool) -> None:
        """A turn begins; the one before it, if there was one, has ended."""
        now, used = time.monotonic(), sum(self._process.cpu_times()[:2])
        if self._turn is not None:
            was_on, started, before = self._turn
            self._shares[was_on].append(100 * (used - before) / (now - started))
        self._turn = is_on, now, used


def row(what: str, values: Sequence[float], unit: str, limit: float) -> dict:
    return {"what": what, "values": [round(value, 2) for value in values], "unit": unit, "limit": limit}


if __name__ == "__main__":
    main()
