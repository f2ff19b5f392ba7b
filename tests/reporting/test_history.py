"""History: what is recorded in a run folder, corrupt or not."""

import pytest
from recordings import RECORDS, make_run, sample

from tokenloom.errors import CheckpointError
from tokenloom.reporting.history import headline_figures, read_history
from tokenloom.run_records import RunSummary


@pytest.mark.parametrize(
    "tail",
    ['{"step": 440, "tra', '{"step": 440}garbage', "\x00\x00\x00", '"text"'],
    ids=["cut", "mixed", "nul", "text"],
)
def test_an_incomplete_last_line_is_skipped(tmp_path, tail):
    assert read_history(make_run(tmp_path / "run", tail=tail)).metrics == RECORDS


def test_a_last_line_that_ends_inside_a_character_is_skipped(tmp_path):
    run = make_run(tmp_path / "run", samples=[sample(1, "x")])
    with (run / "samples.jsonl").open("ab") as file:
        file.write('{"text": "é'.encode()[:-1])
    assert len(read_history(run).samples) == 1


def test_any_other_corrupt_line_is_named(tmp_path):
    run = make_run(tmp_path / "run", tail="oops\n{}\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 5, is invalid"):
        read_history(run)


def test_the_figures_of_an_unfinished_run_are_the_recorded_ones(tmp_path):
    figures = headline_figures(read_history(make_run(tmp_path / "run")))
    assert (figures.steps, figures.val_loss, figures.val_perplexity) == (86, 6.452, 20599.1)
    assert (figures.best_step, figures.best_val_loss, figures.last_val_loss) == (56, 6.134, 6.452)


def test_the_summary_takes_precedence(tmp_path):
    run = make_run(tmp_path / "run", summary=RunSummary(run="run", val_loss=6.5, train_loss=None))
    figures = headline_figures(read_history(run))
    assert (figures.val_loss, figures.train_loss) == (6.5, 0.391)
