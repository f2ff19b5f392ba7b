"""The state of a run, from what a process that trains it, or trained it, left on disk."""

import os
import subprocess
import sys
import time

import pytest
from recordings import make_run

from tokenloom.reporting.run_state import RECENT_SECONDS, STALE_SECONDS, read_status
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunSummary


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(make_run(tmp_path / "run"))


def test_a_locked_run_is_training_and_then_stale(run):
    now = run.metrics_file.stat().st_mtime
    with run.locked():
        status = read_status(run, now + 5)
        assert (status.state, status.process, status.changed) == ("training", os.getpid(), now)
        assert read_status(run, now + STALE_SECONDS + 290).state == "stale"
        # The last two records are 30 seconds apart, so the next one is not late yet.
        assert read_status(run, now + STALE_SECONDS + 170).state == "training"
    assert read_status(run, now).state == "stopped"


def test_a_run_without_records_is_training_from_its_start(tmp_path):
    run = RunFolder(make_run(tmp_path / "run", records=()))
    run.metrics_file.unlink()
    with run.locked():
        assert read_status(run, time.time()).state == "training"
    assert read_status(run, time.time()).state == "stopped"


def test_looking_does_not_take_the_lock(run):
    with run.locked():
        before = run.lock_file.stat()
        read_status(run, time.time())
        assert run.lock_file.stat() == before
    read_status(run, time.time())
    assert not run.lock_file.exists()


def test_the_lock_of_a_killed_process_does_not_count_for_long(run):
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    run.lock_file.write_text(str(killed.pid))
    now = run.metrics_file.stat().st_mtime
    assert read_status(run, now + RECENT_SECONDS + 1).state == "stopped"
    assert read_status(run, now + 1).state == "training"  # perhaps in another container, whose processes are not seen


def test_a_younger_process_of_the_same_number_is_another_one(run):
    run.lock_file.write_text(str(os.getpid()))
    assert run.training_process() == os.getpid()
    os.utime(run.lock_file, (0, 0))
    assert run.training_process() is None


@pytest.mark.parametrize("content", ["", "-1", "99999999999999999999", "no number", "\x00"])
def test_a_lock_file_with_other_content_has_no_process(run, content):
    run.lock_file.write_text(content)
    assert run.training_process() is None


def test_a_run_with_summary_and_report_is_finished(run):
    run.write_summary(RunSummary(run="run"))
    assert read_status(run, time.time()).state == "stopped"
    run.report_file.write_text("report")
    assert read_status(run, time.time()).state == "finished"


@pytest.mark.parametrize(
    "line", ['"train/loss": null', '"val/loss": NaN', '"train/loss": Infinity', '"grad_norm": null']
)
def test_a_run_whose_last_loss_is_not_finite_has_diverged(run, line):
    with run.metrics_file.open("a") as file:
        file.write(f'{{"step": 90, "tokens": 1, "epoch": 1, "seconds": 1, {line}}}\n')
    assert read_status(run, time.time()).state == "diverged"
    with run.locked():  # it was resumed and has no new record yet
        assert read_status(run, time.time()).state == "training"


@pytest.mark.parametrize("tail", ["garbage\n", "[]\n", '{"step": 1, "tra', "\xff\n", '{"seconds": "x"}\n'])
def test_broken_lines_are_not_a_state(run, tail):
    with run.metrics_file.open("a", encoding="latin-1") as file:
        file.write(tail)
    assert read_status(run, time.time()).state == "stopped"
