"""History: what a run folder tells, damaged or not."""

import pytest
from recordings import RECORDS, make_run, sample

from tokenloom.errors import CheckpointError
from tokenloom.reporting.history import headline_figures, read_history


@pytest.mark.parametrize(
    "tail",
    ['{"step": 440, "tra', '{"step": 440}garbage', "\x00\x00\x00", '"text"'],
    ids=["cut", "mixed", "nul", "text"],
)
def test_a_last_line_cut_off_by_a_crash_is_left_out(tmp_path, tail):
    assert read_history(make_run(tmp_path / "run", tail=tail)).records == RECORDS


def test_a_cut_inside_a_character_is_left_out_too(tmp_path):
    run = make_run(tmp_path / "run", samples=[sample(1, "x")])
    with (run / "samples.jsonl").open("ab") as file:
        file.write('{"text": "é'.encode()[:-1])
    assert len(read_history(run).samples) == 1


def test_a_damaged_line_elsewhere_is_named(tmp_path):
    run = make_run(tmp_path / "run", tail="oops\n{}\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 5, is not a JSON object"):
        read_history(run)


def test_an_unfinished_run_is_as_far_as_its_records_tell(tmp_path):
    figures = headline_figures(read_history(make_run(tmp_path / "run")))
    assert (figures["steps"], figures["val_loss"], figures["best_step"]) == (86, 6.452, 56)


def test_the_summary_has_the_last_word(tmp_path):
    run = make_run(tmp_path / "run", summary={"val_loss": 6.5, "train_loss": None})
    figures = headline_figures(read_history(run))
    assert (figures["val_loss"], figures["train_loss"]) == (6.5, 0.391)
