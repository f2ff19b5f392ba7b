"""The report: one self-contained page, whatever the run contains."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from recordings import make_run, record, sample

from tokenloom.config import Config
from tokenloom.errors import CheckpointError
from tokenloom.reporting import report
from tokenloom.reporting.matplotlib_plots import plot_losses
from tokenloom.reporting.report import write_report
from tokenloom.reporting.report_page import SAMPLES_SHOWN
from tokenloom.run_records import Baselines, RunSummary

SUMMARY = RunSummary(
    run="runs/the book",
    steps=86,
    tokens=44032,
    seconds=90.0,
    val_loss=6.452,
    val_bits_per_byte=2.43,
    best_step=56,
    best_val_loss=6.134,
    command='tokenloom train book.txt --prompt "<Every> effort"',
)
BASELINES = Baselines(unigram_bits_per_byte=4.4, xz_bits_per_byte=2.6)


class Page(HTMLParser):
    """The page as a browser reads it: tags, loaded resources, and visible text."""

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


def test_a_finished_run_is_reported_in_full(tmp_path):
    samples = [sample(1, " moves you,,,"), sample(86, " moves you know")]
    run = make_run(tmp_path / "book", samples=samples, summary=SUMMARY, baselines=BASELINES)
    page = page_of(run)
    for words in (
        "finished",
        "python-docs",
        "xz needs 2.60 given the same training text",
        "Overfitting: the validation loss was lowest at step 56 (6.134)",
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


def test_the_policy_allows_only_the_script_of_the_page(tmp_path):
    html = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert ".querySelector" in script


def test_the_content_of_a_sample_is_shown_and_never_interpreted(tmp_path):
    hostile = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)> & \x00 \x1b[31m \ud800 \x9b end"
    samples = [sample(step, hostile, prompt="<b>bold</b>") for step in (1, 56)]
    page = page_of(make_run(tmp_path / "run", samples=samples, summary=replace(SUMMARY, device="<img>")))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert "<script>alert(1)</script><img src=x onerror=alert(1)> & ␀ ␛[31m \ufffd \ufffd end" in page.shown
    assert page.shown.count("<b>bold</b>") >= 2


def test_an_unfinished_run_shows_its_position(tmp_path):
    page = page_of(make_run(tmp_path / "run", tail='{"st'))
    assert "not finished: step 86 of 1,000" in page.shown
    assert "6.452" in page.shown
    assert "--train.max-steps" not in page.shown


def test_an_empty_folder_gets_a_page(tmp_path):
    assert "Nothing has been measured yet" in page_of(tmp_path).shown


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


def test_only_finished_files_are_left(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "plot_losses", plot_losses)
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


def test_two_seeds_of_one_prompt_are_shown_separately(tmp_path):
    samples = [sample(step, f"seed-{seed}", seed=seed) for step in (1, 56) for seed in (1, 2)]
    page = page_of(make_run(tmp_path / "run", samples=samples))
    assert page.tags.count("h3") == 2


def test_validation_figures_are_labeled_with_the_text_they_are_measured_on(tmp_path):
    finished = page_of(make_run(tmp_path / "finished", summary=SUMMARY)).shown
    for label in (
        "nats per token, whole validation text",
        "Final evaluation: whole validation text",
        "Evaluations during training: at most 8 batches of the validation text",
    ):
        assert label in finished
    unfinished = page_of(make_run(tmp_path / "unfinished")).shown
    assert "nats per token, last evaluation, at most 8 batches of the validation text" in unfinished
    assert "Last evaluation: at most 8 batches of the validation text" in unfinished
    every = Config.of({"train": {"eval_batches": None}})
    assert "at most" not in page_of(make_run(tmp_path / "whole", config=every, summary=SUMMARY)).shown


def test_figures_on_a_part_of_the_validation_text_say_how_large_it_is(tmp_path):
    records = [record(1, train_loss=2.0), record(1, val_loss=3.416, val_bits_per_byte=1.61, val_share=0.1234)]
    run = make_run(
        tmp_path / "run", records=records, samples=[sample(1, "x")], summary=replace(SUMMARY, val_loss=3.457)
    )
    shown = page_of(run).shown
    for text in (
        "nats per token; validation on 12% of the validation text",
        "of 12% of the validation text; lower is better",
        "val 3.416 on 12%",
        "model 1.61 on 12%",
        "validation loss 3.416 on 12% of the text",
        "Evaluations during training: 12% of the validation text",
        "Final evaluation: whole validation text",
        "nats per token, whole validation text",
    ):
        assert text in shown
    records = [replace(each, val_share=1.0) for each in records if each.val_loss]
    whole = page_of(make_run(tmp_path / "whole", records=records, samples=[sample(1, "x")], summary=SUMMARY)).shown
    assert "on 12%" not in whole
    assert "nats per token; validation on the whole validation text" in whole


def test_every_recorded_metric_is_in_the_results(tmp_path):
    page = page_of(make_run(tmp_path / "run", records=[record(1, muon_lr=0.02, mfu=0.305)]))
    assert re.search(r"Model FLOPs utilization\s*30\.5%\s*of peak FLOP/s", page.shown)
    assert re.search(r"Learning rate of Muon\s*0\.02", page.shown)


def test_a_model_that_was_initialized_from_another_is_not_called_trained_from_scratch(tmp_path):
    config = Config.of({"train": {"init_from": "gpt2"}})
    page = page_of(make_run(tmp_path / "run", config=config))
    assert "initialized from gpt2 and trained on python-docs" in page.shown
    assert "from scratch" not in page.shown
