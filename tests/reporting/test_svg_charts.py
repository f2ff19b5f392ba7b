"""Charts: every metric as SVG, with its axes and labels."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from recordings import BASELINES, records_of

from tokenloom.metrics import METRICS
from tokenloom.reporting.svg_charts import bits_per_byte_svg, losses_svg, metric_svg


def texts_of(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_a_long_run_gives_a_small_chart():
    records = records_of(100_000, every=1, validation=False)
    assert len(losses_svg(records)) < 30_000


def test_the_loss_chart_labels_its_lines_and_both_axes():
    texts = texts_of(losses_svg(records_of(90), baselines=BASELINES))
    assert {"epoch", "tokens seen", "unigram 7.18", "train 2.089", "val 3.089"} <= set(texts)
    # Ten epochs: whole numbers below, thousands of tokens above.
    assert {"0", "5", "10", "20k", "40k"} <= set(texts)


def test_overlapping_labels_are_moved_apart():
    root = ElementTree.fromstring(bits_per_byte_svg(records_of(90), baselines=BASELINES))
    heights = {e.text: float(e.attrib["y"]) for e in root.iter() if e.text in ("xz 1.80", "zstd 1.82")}
    assert len(heights) == 2
    # Labels are 16 pixels apart; coordinates have one decimal.
    assert heights["xz 1.80"] - heights["zstd 1.82"] > 15.85


@pytest.mark.parametrize("chart", [losses_svg, bits_per_byte_svg])
def test_labels_of_lines_fit_into_the_chart(chart):
    records = [replace(record, val_share=0.23) for record in records_of(90)]
    root = ElementTree.fromstring(chart(records, baselines=BASELINES))
    width = float(root.attrib["viewBox"].split()[2])
    labels = {e.text: float(e.attrib["x"]) for e in root.iter() if "font-weight" in e.attrib.get("style", "")}
    assert any(label.endswith(" on 23%") for label in labels)
    for label, x in labels.items():
        assert x + 7.9 * len(label) <= width, label  # DejaVu Sans in bold, which is wide


def test_nothing_recorded_gives_no_chart():
    assert losses_svg([]) == ""
    assert bits_per_byte_svg(records_of(9, validation=False), baselines=BASELINES) == ""
    assert metric_svg(records_of(9), METRICS["mfu"]) == ""


@pytest.mark.parametrize("value", [0.0, 1.0, 4e-4, 1e9])
def test_a_constant_series_has_an_axis(value):
    records = [replace(record, lr=value) for record in records_of(5)]
    assert len(texts_of(metric_svg(records, METRICS["lr"]))) > 4
