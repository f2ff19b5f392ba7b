"""Every view in a browser while a run trains: it grows on the page, and a pinned checkpoint has fixed numbers."""

import contextlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from browser import expect, printed, wait_for_address, wait_for_numbers

TEXT = "all work and no play"
STEPS = 50  # from one evaluation to the next
FIRST = f"live@step-{STEPS}"  # the checkpoint of the first evaluation, which is kept
PATIENCE = 60_000  # ms for what the training process has to do, such as importing torch, on a busy machine
FLAGS = (
    "--tokenizer byte --model.family gpt2 --model.n-layer 1 --model.n-head 2 --model.n-embd 16 --model.block-size 32 "
    f"--train.batch-size 2 --train.max-steps 1000000 --train.log-interval 10 --train.eval-interval {STEPS} "
    "--train.eval-batches 1 --sample.max-new-tokens 4 --no-compile --device cpu --json"
)

STEP = "dl.readout dd"  # the first value under the chart
GREW = f"before => Number(document.querySelector('{STEP}')?.textContent.replace(/[^0-9]/g, '')) >= before + {STEPS}"


@pytest.fixture
def trained(tmp_path) -> Path:
    """The folder of a run that trains until the end of the test."""
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    command = [sys.executable, "-m", "tokenloom", "train", "text.txt", "--out", "runs/live", *FLAGS.split()]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield tmp_path / "runs" / "live"
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def step_shown(page) -> int:
    return int(re.sub(r"\D", "", page.locator(STEP).first.inner_text()))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_view_works_while_a_run_trains(open_page, start_server, trained, capsys):
    url = start_server(trained.parent).url
    page = open_page("#/runs", url=url)
    expect(page.locator("table.runs tr", has_text="live")).to_contain_text("training", timeout=PATIENCE)
    expect(page.locator(".sample pre").first).to_be_visible(timeout=PATIENCE)
    before = step_shown(page)
    page.wait_for_function(GREW, arg=before, timeout=PATIENCE)

    page.get_by_role("link", name="Models").click()
    first = page.locator(f".checkpoints tr[data-name='{FIRST}']")
    first.get_by_role("link", name="Read").click()
    wait_for_address(page, f"/read.*m={FIRST}")
    page.locator("textarea").fill(TEXT)
    expected = printed(capsys, "inspect", f"{trained}@step-{STEPS}", "--text", TEXT)
    expect(page.locator(".tokens .token")).to_have_count(len(expected["tokens"]) + 1)
    wait_for_numbers(page, "[data-figure=loss]", [expected["loss"]], 0.001)

    page.get_by_role("link", name="Write").click()
    wait_for_address(page, f"/write.*m={FIRST}")
    page.goto(f"{page.url}&temp=0&len=8")
    page.locator("textarea").fill("all")
    page.get_by_role("button", name="Write", exact=True).click()
    keep = page.get_by_role("button", name="Keep")
    expect(keep).to_be_enabled()
    options = ("--prompt", "all", "--max-new-tokens", "8", "--temperature", "0")
    completion = printed(capsys, "generate", f"{trained}@step-{STEPS}", *options)["completions"][0]
    keep.click()
    expect(page.locator("textarea")).to_have_value("all" + completion["text"].replace("\r\n", "\n").replace("\r", "\n"))

    page.get_by_role("link", name="Next").click()
    expect(page.locator(".bars.next li").first).to_be_visible()
    page.go_back()
    wait_for_address(page, "/write")
    page.get_by_role("link", name="Runs").click()
    page.wait_for_function(GREW, arg=before + STEPS, timeout=PATIENCE)
