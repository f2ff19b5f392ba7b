"""The time of a training step with something else beside it and without, in turns during one run.

The speed of a machine changes by more than a server costs, so each turn is compared with the one before it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 120.0


class StepTimes:
    """The times of the steps of a run that trains, from its records; its log interval has to be 1."""

    def __init__(self, path: Path, process: subprocess.Popen) -> None:
        self._path = path
        self._process = process

    def wait_for(self, count: int) -> None:
        """Wait until there are so many steps; raises `RuntimeError` if the run ends, or takes two minutes."""
        end = time.monotonic() + START_SECONDS
        while len(self._seconds()) < count:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("the run does not train")
            time.sleep(0.1)

    def during(self, seconds: float) -> list[float]:
        """The seconds of each step in the next so many seconds; at least one."""
        before = len(self._seconds())
        time.sleep(seconds)
        self.wait_for(before + 2)
        return [later - earlier for earlier, later in itertools.pairwise(self._seconds()[before:])]

    def _seconds(self) -> list[float]:
        """When each record was written, on the clock of the run; the last line may still be incomplete."""
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        return [json.loads(line)["seconds"] for line in text.rpartition("\n")[0].splitlines()]


def compare_turns(steps: StepTimes, switch: Callable[[bool], None], rounds: int, seconds: float) -> dict:
    """Mean seconds of a step without and with what `switch` turns on, and by how much it is longer, by their medians.

    `costs` has the ratio of each two successive turns, less 1; `cost` is its median, and `cost_quartiles` tell how much
    the machine itself varied.
    """
    without, beside = list[float](), list[float]()
    for _ in range(rounds):
        for is_on, means in ((False, without), (True, beside)):
            switch(is_on)
            means.append(statistics.fmean(steps.during(seconds)))
    switch(False)
    costs = [on / off - 1 for off, on in zip(without, beside, strict=True)]
    quartiles = statistics.quantiles(costs) if rounds > 1 else [costs[0]] * 3
    return {
        "step_seconds": round(statistics.median(without), 5),
        "step_seconds_beside": round(statistics.median(beside), 5),
        "rounds": rounds,
        "costs": [round(cost, 4) for cost in costs],
        "cost": round(quartiles[1], 4),
        "cost_quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
    }
