"""Copied passages in a browser: underlined in the samples of a run and in what a model writes."""

import re
import shutil

import pytest
from browser import expect

from tokenloom import api
from tokenloom.evaluation import copied_text
from tokenloom.run_folder import JsonlWriter, RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.sampling_params import SamplingParams

LINE = "all work and no play makes Jack a dull boy\n"


@pytest.fixture(scope="module")
def copying(page_runs, tmp_path_factory):
    """A folder with runs that have one sample: in "copies", it is from the training text."""
    folder = tmp_path_factory.mktemp("copying")
    for name in ("copies", "moved"):
        run = RunFolder(shutil.copytree(page_runs / "short", folder / name))
        run.samples_file.unlink()
        samples = JsonlWriter(run.samples_file)
        text = f"work and no play makes Jack a dull boy\n{LINE}but not a <b>word</b> of this."
        samples.write({"step": 12, "tokens": 384, "seed": 1, "prompt": "Then all ", "text": text})
        samples.close()
    moved = RunFolder(folder / "moved")
    moved.write_identity(RunIdentity(**vars(moved.identity()) | {"shards": str(folder / "nothing")}))
    return folder


def test_copied_passages_of_a_sample_are_underlined(open_page, start_server, copying):
    server = start_server(copying)
    page = open_page("#/runs?run=copies", url=server.url)
    marks = page.locator(".sample mark.copied")
    expect(marks).to_have_text(["all ", f"work and no play makes Jack a dull boy\n{LINE}".rstrip()])
    expect(page.locator(".sample b mark.copied")).to_have_text("all ")
    expect(marks.first).to_have_attribute("title", re.compile("Copied from token [0-9,]+ of the training text: "))
    length = len(f"work and no play makes Jack a dull boy\n{LINE}".rstrip())
    expect(page.locator(".sample [data-copied]")).to_have_attribute("data-copied", str(length))
    expect(page.locator("[data-compared]")).to_contain_text("Compared with the training text")
    expect(page.locator(".sample pre")).to_contain_text("but not a <b>word</b> of this.")


def test_only_the_first_tokens_are_compared_and_the_page_says_so(open_page, start_server, copying, monkeypatch):
    monkeypatch.setattr(copied_text.TrainingText.__init__, "__kwdefaults__", {"limit": 1000, "shortest_bytes": 40})
    server = start_server(copying)
    page = open_page("#/runs?run=copies", url=server.url)
    expect(page.locator("[data-compared]")).to_contain_text("the first 1,000 tokens of the training text")


def test_a_run_whose_training_text_is_gone_says_so(open_page, start_server, copying):
    server = start_server(copying)
    page = open_page("#/runs?run=moved", url=server.url)
    expect(page.locator("[data-compared]")).to_contain_text("Not compared with the training text")
    expect(page.locator("[data-compared]")).to_contain_text("nothing")
    expect(page.locator(".sample pre")).to_contain_text("Then all work")
    expect(page.locator("mark.copied")).to_have_count(0)


def test_copied_tokens_of_a_continuation_are_underlined(open_page, start_server, page_runs, tmp_path):
    prompt = f"{LINE}all work and no play makes Jack a dull boy"
    options = {"max_new_tokens": 8, "sampling": SamplingParams(temperature=0)}
    [[completion]] = api.generate(page_runs / "short", prompt, **options)
    (tmp_path / "text.txt").write_text(f"{prompt}{completion.text[:6]}#\n" * 50)
    shards = api.prepare(tmp_path / "text.txt", out=tmp_path / "shards", tokenizer="byte", quiet=True)
    run = RunFolder(shutil.copytree(page_runs / "short", tmp_path / "runs" / "writes"))
    changed = {"dataset": shards.fingerprint, "shards": str(shards.path)}
    run.write_identity(RunIdentity(**vars(run.identity()) | changed))
    server = start_server(tmp_path / "runs")
    page = open_page("#/write?m=writes&temp=0&len=8", url=server.url)
    page.locator("textarea").fill(prompt)
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator(".written .tokens .token")).to_have_count(8)
    expect(page.locator(".written .tokens .copied")).to_have_count(6)
    expect(page.locator(".written [data-copied]")).to_have_attribute("data-copied", "6")
    expect(page.locator(".written .copied").first).to_have_attribute("aria-label", re.compile(", copied$"))
