"""Threads sleep while they wait if other processes use the cores."""

import pytest

from tokenloom.compute import waiting


@pytest.mark.parametrize(
    ("percents", "before", "after"),
    [
        ([0.0, 30.0, 30.0], None, "passive"),
        ([100.0, 5.0, 5.0], None, None),  # a core of others
        ([0.0, 100.0, 100.0], "active", "active"),
        ([0.0, 5.0, 5.0], "passive", "passive"),
    ],
)
def test_threads_sleep_on_busy_cores_unless_the_user_decides(monkeypatch, percents, before, after):
    monkeypatch.setattr(waiting.psutil, "cpu_percent", lambda interval, percpu: percents)
    monkeypatch.setattr(waiting.os, "sched_getaffinity", lambda process: {1, 2}, raising=False)
    environment = {} if before is None else {waiting.WAIT_POLICY: before}
    monkeypatch.setattr(waiting.os, "environ", environment)
    waiting.sleep_if_busy()
    assert environment.get(waiting.WAIT_POLICY) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "10000"), ({waiting.WAIT_POLICY: "active"}, None), ({waiting.SPIN_COUNT: "5"}, "5")],
)
def test_threads_of_a_server_spin_briefly_unless_the_user_decides_or_the_machine_is_busy(monkeypatch, before, after):
    environment = dict(before)
    monkeypatch.setattr(waiting.os, "environ", environment)
    waiting.spin_briefly()
    assert environment.get(waiting.SPIN_COUNT) == after
