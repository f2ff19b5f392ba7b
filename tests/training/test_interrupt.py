"""The first signal requests a stop, the second one stops immediately."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tokenloom.training.interrupt import SIGNALS, StopRequest

# Prints and writes a file after it was asked to stop.
STOPPED = """
import pathlib, sys, time
from tokenloom.training.interrupt import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("saving", flush=True)
    pathlib.Path(sys.argv[1]).touch()
sys.exit(128 + stop.signal_number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_only_sets_the_flag(number):
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested
        assert stop.signal_number == number


def test_the_second_signal_stops_immediately():
    with StopRequest(), pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the first signal must not raise
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_the_previous_handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_an_ignored_signal_stays_ignored():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_closed_terminal_does_not_prevent_saving(tmp_path):
    terminal, output = pty.openpty()
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "saved")]
    process = subprocess.Popen(command, stdin=output, stdout=output, stderr=output)
    os.close(output)
    assert os.read(terminal, 5) == b"ready"
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()
