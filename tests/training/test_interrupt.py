"""The first signal requests a stop, the second one stops immediately."""

import signal

import pytest

from tokenloom.training.interrupt import SIGNALS, StopRequest


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
