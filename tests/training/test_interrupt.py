"""The first signal asks, the second one insists."""

import signal

import pytest

from tokenloom.training.interrupt import StopRequest


def test_the_first_signal_only_asks():
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        assert stop.signal_number == signal.SIGINT


def test_the_second_signal_stops_at_once():
    with StopRequest(), pytest.raises(KeyboardInterrupt):  # noqa: PT012 - both signals belong to the one act
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
