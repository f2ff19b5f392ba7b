"""A signal leaves one line and exit code 128 plus its number, also while modules are imported."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tokenloom
from tokenloom.cli.signals import SIGNALS, StoppedBySignal, StopSignals

# Runs a command that receives a signal when it starts to import a module.
SIGNAL_DURING_IMPORT = """
import signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            signal.raise_signal(number)

module, number, *sys.argv[1:] = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
sys.meta_path.insert(0, Finder())
import runpy
runpy.run_module("tokenloom", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["tokenloom.cli.main", "cyclopts", "numpy", "torch"])
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_an_import_leaves_one_line(tmp_path, module, number):
    (tmp_path / "text.txt").write_text("all work and no play\n" * 100)
    arguments = ["train", "text.txt", "--tokenizer", "byte", "--out", "run"]
    command = [sys.executable, "-c", SIGNAL_DURING_IMPORT, module, str(int(number)), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.stderr == f"tokenloom: interrupted by {number.name}\n"
    assert done.returncode == 128 + number


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the handlers of a process are read from /proc")
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4])
def test_a_signal_at_the_start_of_a_command_leaves_one_line(delay):
    command = [sys.executable, "-m", "tokenloom", "bench", "loading"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_handler(process.pid, signal.SIGTERM)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert (errors, process.returncode) == ("tokenloom: interrupted by SIGINT\n", 130)


def wait_for_handler(process: int, number: signal.Signals) -> None:
    """Wait until the process handles the signal; the interpreter and the start script come before."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        if caught >> (number - 1) & 1:
            return
    raise AssertionError(f"no handler of {number.name} after 2 s")


def test_little_is_imported_before_signals_are_handled():
    code = "import sys, tokenloom.__main__; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(tokenloom.__file__).parent.parent)}
    command = [sys.executable, "-S", "-c", code]  # without site-packages
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    others = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"__main__", "tokenloom", "tokenloom.__main__", "tokenloom.cli", "tokenloom.cli.signals"}
    assert "typing" not in loaded


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_an_exception_with_its_exit_code(number):
    with StopSignals() as signals, pytest.raises(StoppedBySignal) as stopped:
        signal.raise_signal(number)
    assert stopped.value is signals.received
    assert stopped.value.exit_code == 128 + number


def test_the_previous_handlers_are_restored_and_ignored_signals_stay_ignored():
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        before = [signal.getsignal(number) for number in SIGNALS]
        with StopSignals():
            signal.raise_signal(signal.SIGTERM)
        assert [signal.getsignal(number) for number in SIGNALS] == before
    finally:
        signal.signal(signal.SIGTERM, previous)
