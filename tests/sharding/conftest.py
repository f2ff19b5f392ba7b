"""One pair of processes for all tests here, because starting processes takes seconds."""

import os
from pathlib import Path

import pytest
from filelock import FileLock
from sharded_processes import run_processes


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """The folder of what two processes have written, the same in all processes of pytest."""
    from test_planned_sizes import allocates_and_sends
    from test_sharded_checkpoint import saves_and_trains_on
    from test_sharded_run import resumes_a_run, trains_a_run, write_text
    from test_sharding import trains

    own = tmp_path_factory.getbasetemp()
    found = (own.parent if "PYTEST_XDIST_TESTRUNUID" in os.environ else own) / "two-processes.txt"
    with FileLock(f"{found}.lock"):
        if not found.exists():
            folder = tmp_path_factory.mktemp("two")
            write_text(folder)
            run_processes(2, folder, trains, saves_and_trains_on, trains_a_run, resumes_a_run, allocates_and_sends)
            found.write_text(str(folder))
    return Path(found.read_text())
