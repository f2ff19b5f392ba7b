"""The report: one page that stands alone, whatever the run holds."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from recordings import make_run, sample

from tokenloom.errors import CheckpointError
from tokenloom.reporting.report import SAMPLES_SHOWN, write_report

SUMMARY = {
    "run": "runs/the book",
    "steps": 86,
    "tokens": 44032,
    "seconds": 90.0,
    "val_loss": 6.452,
    "val_bits_per_byte": 2.43,
    "best_step": 56,
    "best_val_loss": 6.134,
    "peak_memory_mb": None,
    "command": 'tokenloom train book.txt --prompt "<Every> effort"',
}
BASELINES = {"unigram_bits_per_byte": 4.4, "xz_bits_per_byte": 2.6, "zstd_bits_per_byte": None}


class Page(HTMLParser):
    """What a browser would find: the tags, what they load, and the text that is shown."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads, self.shown, self._hidden = [], [], "", 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._hidden += tag in ("script", "style")
        self.loads += [value for name, value in attrs if name in ("src", "srcset") or (name, tag) == ("href", "link")]

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        self.shown += "" if self._hidden else data


def page_of(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_a_finished_run_is_told_in_full(tmp_path):
    samples = [sample(1, " moves you,,,"), sample(86, " moves you know")]
    run = make_run(tmp_path / "book", samples=samples, summary=SUMMARY, baselines=BASELINES)
    page = page_of(run)
    for words in (
        "finished",
        "python-docs",
        "xz needs 2.60 given the same training text",
        "It overfits: the validation loss was lowest at step 56 (6.134)",
        "step 86 · 44k tokens seen · validation loss 6.452",
        "Every effort moves you know",
        "learning_rate",
        "tokenloom generate 'runs/the book@best'",
        "tokenloom train --resume 'runs/the book' --train.max-steps 172",
        '"<Every> effort"',
    ):
        assert words in page.shown
    assert page.tags.count("svg") >= 4
    assert "range" in (run / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing(tmp_path):
    page = page_of(make_run(tmp_path / "run", summary=SUMMARY, baselines=BASELINES))
    assert page.loads == ["data:,"]
    assert "://" not in (tmp_path / "run" / "report.html").read_text().replace("http://www.w3.org/2000/svg", "")


def test_the_policy_allows_the_one_script_that_the_page_has(tmp_path):
    html = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert ".querySelector" in script


def test_what_a_sample_holds_is_shown_and_never_acts(tmp_path):
    hostile = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)> & \x00 \x1b[31m \ud800 \x9b end"
    samples = [sample(step, hostile, prompt="<b>bold</b>") for step in (1, 56)]
    page = page_of(make_run(tmp_path / "run", samples=samples, summary={**SUMMARY, "device": "<img>"}))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert "<script>alert(1)</script><img src=x onerror=alert(1)> & ␀ ␛[31m \ufffd \ufffd end" in page.shown
    assert page.shown.count("<b>bold</b>") >= 2


def test_an_unfinished_run_tells_how_far_it_is(tmp_path):
    page = page_of(make_run(tmp_path / "run", tail='{"st'))
    assert "not finished: step 86 of 1,000" in page.shown
    assert "6.452" in page.shown
    assert "--train.max-steps" not in page.shown


def test_a_folder_that_holds_nothing_yet_gets_a_page(tmp_path):
    assert "Nothing has been measured yet" in page_of(tmp_path).shown


def test_a_run_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


def test_only_finished_files_are_left(tmp_path):
    run = make_run(tmp_path / "run", summary=SUMMARY)
    before = {path.name for path in run.iterdir()}
    write_report(run)
    write_report(run)
    assert {path.name for path in run.iterdir()} - before == {"report.html", "loss.png", "loss.pdf"}


def test_the_same_run_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run", samples=[sample(1, "x")], summary=SUMMARY)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_of_very_many_samples_the_first_and_last_are_kept(tmp_path):
    samples = [sample(step, f"text-{step};") for step in range(1, 1001)]
    page = page_of(make_run(tmp_path / "run", samples=samples))
    assert "text-1;" in page.shown
    assert "text-1000;" in page.shown
    assert page.shown.count("text-") == SAMPLES_SHOWN


def test_two_seeds_of_one_prompt_are_two_stories(tmp_path):
    samples = [{**sample(step, f"seed-{seed}"), "seed": seed} for step in (1, 56) for seed in (1, 2)]
    page = page_of(make_run(tmp_path / "run", samples=samples))
    assert page.tags.count("h3") == 2
