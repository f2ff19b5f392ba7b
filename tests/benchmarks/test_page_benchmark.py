"""Each round of what the page costs is recorded when it is finished."""

import math

import pytest
import records

pytest.importorskip("playwright")

import page


@pytest.fixture(autouse=True)
def recorded(monkeypatch, tmp_path):
    """An empty file of results, on a machine named M."""
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(records, "machine", lambda: "M")
    monkeypatch.setattr(records, "commit", lambda: "c0ffee1")


def rounds():
    return [result["measurement"] for result in records.measured("page")]


def test_an_interrupted_measurement_continues_after_its_last_round():
    row = page.row("open", [40.123, 50.0], "ms", 2000)

    def interrupted():
        if len(rounds()) == 1:
            raise KeyboardInterrupt
        return [row]

    with pytest.raises(KeyboardInterrupt):
        page.measure_missing({"browser": interrupted}, 3, math.inf)
    assert rounds() == ["browser"]
    measurements = {"browser": lambda: [row], "training": lambda: [row]}
    for _ in range(2):
        page.measure_missing(measurements, 3, math.inf)
        assert rounds() == ["browser"] * 3 + ["training"] * 3
    assert records.measured("page")[0]["rows"] == [
        {"what": "open", "values": [40.12, 50.0], "unit": "ms", "limit": 2000}
    ]


def test_no_round_is_started_that_would_end_too_late(capsys):
    page.measure_missing({"browser": list}, 3, page.time.time() + page.ROUND_SECONDS["browser"] - 1)
    assert rounds() == []
    assert "browser, round 1: left out" in capsys.readouterr().err
