"""Runs that are followed while they train: what is new in their files, read when a client asks and not before."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from tokenloom.config import Config
from tokenloom.errors import TokenloomError
from tokenloom.growing_file import Cursor, read_appended
from tokenloom.metrics import METRICS
from tokenloom.reporting.history import figures_of
from tokenloom.reporting.run_state import read_status
from tokenloom.reporting.run_table import RunRow, make_row
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import Baselines, RunPlan, RunSummary
from tokenloom.serving.metric_columns import MetricColumns, Series, with_number_texts
from tokenloom.serving.metric_lines import parse_records
from tokenloom.strict_json import load_json

PAGE_BYTES = 1 << 20
"""Records and samples that one reply contains, in bytes of their files."""
MAX_FOLLOWED = 32  # runs whose metrics are kept in memory


@dataclass(frozen=True)
class Appended:
    """Records or samples since a cursor."""

    items: list[Mapping[str, object]]
    cursor: Cursor
    reset: bool
    """The run was resumed or replaced: these items are from the start, and earlier ones are void."""
    more: bool
    """There are further ones: ask again with the cursor."""

    def to_json(self, key: str) -> dict[str, object]:
        return {key: self.items, "cursor": str(self.cursor), "reset": self.reset, "more": self.more}


@dataclass(frozen=True)
class RunSeries:
    """Metrics of a run as series, and where to continue with its records."""

    series: Mapping[str, Series]
    records: int
    cursor: Cursor

    def to_json(self) -> dict[str, object]:
        """Each series names the place of its axes in a list: metrics of the same records have the same ones."""
        axes = {id(one.axes): one.axes for one in self.series.values()}
        places = {number: place for place, number in enumerate(axes)}
        series = {key: {**one.to_json(), "axes": places[id(one.axes)]} for key, one in self.series.items()}
        return {"axes": [*axes.values()], "series": series, "records": self.records, "cursor": str(self.cursor)}


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that change only when it starts, is resumed or ends."""

    config: Config
    plan: RunPlan | None
    baselines: Baselines | None
    summary: RunSummary | None

    def to_json(self) -> dict[str, object]:
        return {
            "config": self.config.model_dump(mode="json"),
            "plan": None if self.plan is None else asdict(self.plan),
            "baselines": None if self.baselines is None else asdict(self.baselines),
            "summary": None if self.summary is None else self.summary.to_json(),
        }


class FollowedRuns:
    """Answers questions about runs that may be training. Thread-safe; nothing is read between two questions.

    The metrics of the runs that were asked about last are kept as columns, so that only what was appended is read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[Path, _FollowedRun] = OrderedDict()

    def row(self, id: str, run: RunFolder) -> RunRow:
        """The row of a run in the table of runs; what cannot be read is its `problem`."""
        return self._followed(run).row(id)

    def files(self, run: RunFolder) -> RunFiles:
        """The configuration of a run and what is known of it; raises `CheckpointError` for a corrupt file."""
        return self._followed(run).files()

    def records(self, run: RunFolder, cursor: Cursor | None) -> Appended:
        """Metrics records since a cursor, under the keys of the file; numbers that are not finite are strings."""
        appended = read_appended(run.metrics_file, cursor, PAGE_BYTES)
        records = [cast("Mapping[str, object]", with_number_texts(one)) for one in parse_records(appended.lines)]
        return Appended(records, appended.cursor, appended.reset, appended.more)

    def samples(self, run: RunFolder, cursor: Cursor | None) -> Appended:
        """Samples since a cursor; lines that are none are left out."""
        appended = read_appended(run.samples_file, cursor, PAGE_BYTES)
        samples = [sample for line in appended.lines if (sample := _sample(line)) is not None]
        return Appended(samples, appended.cursor, appended.reset, appended.more)

    def series(self, run: RunFolder, keys: list[str] | None, start: float, stop: float, buckets: int) -> RunSeries:
        """Metrics (None: all) from step `start` to `stop`, as points or in buckets."""
        return self._followed(run).series(keys, start, stop, buckets)

    def at_steps(self, run: RunFolder, key: str, steps: Collection[int]) -> dict[int, float]:
        """The value of a metric at those of some steps that have one."""
        return self._followed(run).at_steps(key, steps)

    def _followed(self, run: RunFolder) -> _FollowedRun:
        with self._lock:
            followed = self._runs.setdefault(run.path, _FollowedRun(run))
            self._runs.move_to_end(run.path)
            while len(self._runs) > MAX_FOLLOWED:
                self._runs.popitem(last=False)
            return followed


class _FollowedRun:
    """A run, with its metrics in memory."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._columns = MetricColumns(run.metrics_file)
        self._files: tuple[object, RunFiles] | None = None

    def row(self, id: str) -> RunRow:
        status = read_status(self._run, time.time())
        figures = RunSummary(run=str(self._run.path))
        try:
            with self._lock:
                self._columns.update()
                latest, best = self._columns.latest(), self._columns.lowest(METRICS["val_loss"].key)
            figures = figures_of(self._run, latest, best, None)
            files = self.files()
            return make_row(id, status, figures_of(self._run, latest, best, files.summary), files.config, files.plan)
        except (TokenloomError, OSError) as error:
            return RunRow(run=id, status=status, figures=figures, problem=str(error))

    def files(self) -> RunFiles:
        run = self._run
        version = tuple(map(_version, (run.config_file, run.plan_file, run.baselines_file, run.summary_file)))
        with self._lock:
            if self._files is None or self._files[0] != version:
                self._files = version, RunFiles(run.config(), run.plan(), run.baselines(), run.summary())
            return self._files[1]

    def series(self, keys: list[str] | None, start: float, stop: float, buckets: int) -> RunSeries:
        with self._lock:
            columns = self._columns
            columns.update()
            series = columns.series(keys or columns.keys(), start, stop, buckets)
            return RunSeries(series, len(columns), columns.cursor)

    def at_steps(self, key: str, steps: Collection[int]) -> dict[int, float]:
        with self._lock:
            self._columns.update()
            return self._columns.at_steps(key, steps)


def _sample(line: bytes) -> Mapping[str, object] | None:
    try:
        value: object = load_json(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or not {"step", "prompt", "text"} <= cast("dict[str, object]", value).keys():
        return None
    return cast("Mapping[str, object]", with_number_texts(cast("object", value)))


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
