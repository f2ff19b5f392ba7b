"""Curves: the chapter's plot as files, and SVG for the report."""

import math
import xml.etree.ElementTree as ElementTree

import pytest

from tokenloom.reporting.plots import (
    best,
    bits_per_byte_svg,
    compact,
    curve,
    curve_svg,
    losses_svg,
    plot_losses,
    thin,
)

BASELINES = {
    "unigram_nats_per_token": 7.18,
    "xz_bits_per_byte": 1.80,
    "zstd_bits_per_byte": 1.82,
    "unigram_bits_per_byte": None,
}


def records_of(steps, every=1, validation=True):
    records = []
    for step in range(every, steps + 1, every):
        seen = {"step": step, "tokens": step * 512, "epoch": step / 9, "seconds": step / 10}
        loss = 2 + 8 / step
        records.append({**seen, "train/loss": loss, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_sec": 900, "mfu": None})
        if validation and step % (5 * every) == 0:
            bits = (loss + 1) / 3
            records.append({**seen, "val/loss": loss + 1, "val/perplexity": math.exp(loss), "val/bits_per_byte": bits})
    return records


def texts_of(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize(
    "records",
    [
        [],
        records_of(1),
        records_of(1)[:1] * 3,
        records_of(30, validation=False),
        records_of(90),
        [{**record, "train/loss": math.nan} for record in records_of(9)],
        [{"step": 0, "tokens": 0, "epoch": 0.0, "seconds": 0.0, "val/loss": 10.9}],
    ],
    ids=["none", "one", "repeated", "no validation", "many", "nan", "before the first step"],
)
def test_a_plot_is_drawn_whatever_there_is_to_draw(tmp_path, records):
    plot_losses(
        records, [tmp_path / "loss.png", tmp_path / "loss.pdf"], baselines=BASELINES, title="a $run ⟨語⟩ \ud800"
    )
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "loss.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.pdf", "loss.png"]


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        plot_losses(records_of(40), [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"])
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert (tmp_path / "first.pdf").read_bytes() == (tmp_path / "second.pdf").read_bytes()
    assert b"CreationDate" not in (tmp_path / "first.pdf").read_bytes()


def test_plotting_leaves_the_readers_matplotlib_settings_alone(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 23, "figure.facecolor": "black"}):
        plot_losses(records_of(9), [tmp_path / "loss.png"])
        assert matplotlib.rcParams["font.size"] == 23
        styled = (tmp_path / "loss.png").read_bytes()
    plot_losses(records_of(9), [tmp_path / "loss.png"])
    assert styled == (tmp_path / "loss.png").read_bytes()


def test_a_curve_holds_finite_values_in_order_of_steps():
    records = [*reversed(records_of(3)), {"step": 4, "tokens": 5, "epoch": 1, "train/loss": math.inf}, {"step": 5}]
    assert [point.step for point in curve(records, "train/loss")] == [1, 2, 3]


def test_the_best_point_is_the_earliest_of_the_lowest():
    points = curve(
        [{"step": s, "tokens": s, "epoch": s, "val/loss": v} for s, v in [(1, 3), (2, 2), (3, 2)]], "val/loss"
    )
    lowest = best(points)
    assert lowest is not None
    assert lowest.step == 2
    assert best([]) is None


def test_thinning_keeps_every_spike_and_the_mean():
    records = records_of(1000, validation=False)
    records[500]["train/loss"] = 99.0
    buckets = thin(curve(records, "train/loss"), 50)
    assert len(buckets) == 50
    assert max(bucket.high for bucket in buckets) == 99.0
    mean = sum(record["train/loss"] for record in records) / 1000
    assert math.isclose(sum(bucket.value for bucket in buckets) / 50, mean, rel_tol=1e-12)  # equal buckets


def test_a_long_run_gives_a_small_drawing():
    records = records_of(100_000, every=1, validation=False)
    assert len(losses_svg(records)) < 30_000


def test_the_loss_drawing_names_its_lines_and_both_axes():
    texts = texts_of(losses_svg(records_of(90), baselines=BASELINES))
    assert {"epoch", "tokens seen", "unigram 7.18", "train 2.089", "val 3.089"} <= set(texts)
    # Ten epochs: whole numbers below, thousands of tokens above.
    assert {"0", "5", "10", "20k", "40k"} <= set(texts)


def test_labels_of_lines_that_nearly_meet_are_moved_apart():
    root = ElementTree.fromstring(bits_per_byte_svg(records_of(90), baselines=BASELINES))
    heights = {e.text: float(e.attrib["y"]) for e in root.iter() if e.text in ("xz 1.80", "zstd 1.82")}
    assert len(heights) == 2
    # Sixteen pixels are kept free; places are written with one decimal.
    assert heights["xz 1.80"] - heights["zstd 1.82"] > 15.85


def test_nothing_recorded_gives_no_drawing():
    assert losses_svg([]) == ""
    assert bits_per_byte_svg(records_of(9, validation=False), baselines=BASELINES) == ""
    assert curve_svg(records_of(9), "mfu", "MFU") == ""


@pytest.mark.parametrize("value", [0.0, 1.0, 4e-4, 1e9])
def test_a_constant_curve_has_an_axis(value):
    records = [{**record, "lr": value} for record in records_of(5)]
    assert len(texts_of(curve_svg(records, "lr", "Learning rate"))) > 4


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7.6812, "7.68"), (950, "950"), (999.9, "1k"), (20_310, "20.3k"), (162_419_712, "162M"), (2e12, "2T")],
)
def test_counts_are_short(number, text):
    assert compact(number) == text
