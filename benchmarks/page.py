"""What the page costs: a long run is opened and scrubbed, a text is drawn, and a training is followed.

    python benchmarks/page.py --minutes 20    # again, until nothing is left: 20 minutes in all

A run of 100,000 records is opened by a new server and a new browser, until its curves are drawn. The cursor is moved
over them, one position a frame. A text of 1,024 tokens is drawn in Read, from the reply of the server until the browser
has drawn it. A model is trained with and without the page, in turn; a client that asks for what the page asks for takes
the place of the browser, whose drawing is not the server's work. Each is done in several rounds; a finished one is a
record in data/results.jsonl, and is not repeated at this commit. Prints a table. Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
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
    "--train.batch-size 8 --train.log-interval 5 --train.eval-interval 100 --train.eval-batches 4 --no-compile "
    "--sample.max-new-tokens 50 --device cpu --json"
)
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--minutes", type=float, default=20, help="start no round that would end later")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        measurements = {
            "browser": partial(browser_rows, Path(folder, "runs")),
            "training": partial(training_rows, Path(folder), options.steps),
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


def training_rows(folder: Path, steps: int) -> Iterator[dict]:
    """What the page costs a training: CPU time of its process, and the time of a step beside it."""
    shares, idle = list[float](), list[float]()
    runs = Path(tempfile.mkdtemp(dir=folder))
    alone = step_seconds(runs / "alone", steps)
    with PageProcess(runs) as page:
        url, process = page.url(), page_process()
        with measured_share(process, idle):
            time.sleep(5)
        with measured_share(process, shares):
            followed = step_seconds(runs / "followed", steps, url)
    yield row("CPU of the page while nobody looks, of one core", idle, "%", 2)
    yield row("CPU of the page while a run is followed, of one core", shares, "%", 2)
    yield row(
        "time of a training step beside a page that follows it, to that without", [100 * (followed / alone - 1)], "%", 2
    )


def step_seconds(run: Path, steps: int, url: str | None = None) -> float:
    """The median seconds of a step of a training, which is followed if there is a page."""
    command = [sys.executable, "-m", "tokenloom", "train", *TRAINING.split(), "--train.max-steps", str(steps)]
    command += ["--out", str(run)]
    environment = os.environ | {"TOKENLOOM_CACHE": str(run.parent.parent / "cache")}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        if url is not None:
            follow(process, url, run.name)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}")
    found = RunFolder(run).metrics()
    rates = [one.tokens_per_sec for one in found if one.tokens_per_sec is not None]
    return 8 * 128 / statistics.median(rates)


def follow(process: subprocess.Popen, url: str, name: str) -> None:
    """Ask for what the page asks for, until the process has ended."""
    cursors = dict.fromkeys(("records", "samples"), "0.0.0")
    with httpx2.Client(base_url=url, timeout=60) as http:
        while process.poll() is None:
            rows = http.get("/api/runs").json()["runs"]
            http.get("/api/models")
            if any(row["run"] == name for row in rows):
                for kind, cursor in cursors.items():
                    cursors[kind] = http.get(f"/api/runs/{name}/{kind}", params={"cursor": cursor}).json()["cursor"]
                http.get(f"/api/runs/{name}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERVAL)


def page_process() -> psutil.Process:
    """The process of the page, which this one has started."""
    return next(one for one in psutil.Process().children() if "page_process" in " ".join(one.cmdline()))


@contextlib.contextmanager
def measured_share(process: psutil.Process, shares: list[float]) -> Iterator[None]:
    """Adds the CPU time that the process used, in percent of the time that has passed."""
    before, started = sum(process.cpu_times()[:2]), time.monotonic()
    yield
    shares.append(100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - started))


def row(what: str, values: Sequence[float], unit: str, limit: float) -> dict:
    return {"what": what, "values": [round(value, 2) for value in values], "unit": unit, "limit": limit}


if __name__ == "__main__":
    main()
