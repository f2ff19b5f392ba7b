"""The loss plot of chapter 5 as files."""

import math
from dataclasses import replace

import pytest
from recordings import BASELINES, record, records_of

from tokenloom.reporting.matplotlib_plots import _losses_figure, plot_losses


@pytest.mark.parametrize(
    "records",
    [
        [],
        records_of(1),
        records_of(1)[:1] * 3,
        records_of(30, validation=False),
        records_of(90),
        [replace(record, train_loss=math.nan) for record in records_of(9)],
        [record(0, val_loss=10.9)],
    ],
    ids=["none", "one", "repeated", "no validation", "many", "nan", "before the first step"],
)
def test_a_plot_is_drawn_for_any_records(tmp_path, records):
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


def test_plotting_neither_uses_nor_changes_the_users_matplotlib_settings(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 23, "figure.facecolor": "black"}):
        plot_losses(records_of(9), [tmp_path / "loss.png"])
        assert matplotlib.rcParams["font.size"] == 23
        styled = (tmp_path / "loss.png").read_bytes()
    plot_losses(records_of(9), [tmp_path / "loss.png"])
    assert styled == (tmp_path / "loss.png").read_bytes()


@pytest.mark.parametrize(("share", "label"), [(0.12, "validation on 12% of the text"), (1.0, "validation")])
def test_the_legend_says_on_which_part_of_the_text_the_loss_is_measured(share, label):
    figure = _losses_figure([record(step, val_loss=3.0, val_share=share) for step in (1, 2)], None, None)
    assert label in figure.axes[0].get_legend_handles_labels()[1]
