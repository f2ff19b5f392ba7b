"""Runs over HTTP: their table, files, metrics, samples and checkpoints, while they train."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tokenloom.errors import shortened
from tokenloom.growing_file import Cursor
from tokenloom.metrics import METRICS
from tokenloom.reporting.run_table import find_differences
from tokenloom.run_folder import RunFolder
from tokenloom.serving.errors import RequestError
from tokenloom.serving.models import ModelStore
from tokenloom.serving.models_api import model_json
from tokenloom.serving.reading import read_reply
from tokenloom.serving.run_replies import (
    DifferencesReply,
    RecordsReply,
    RunListReply,
    RunReply,
    SamplesReply,
    SeriesReply,
)
from tokenloom.serving.services import Services, services_of

MAX_COMPARED = 8  # runs
MAX_BUCKETS = 4096
LARGEST_STEP = 2**53

router = APIRouter(prefix="/api", tags=["runs"])

RunId = Annotated[str, Query(description="An id of GET /api/runs.", max_length=4096)]
CursorText = Annotated[str | None, Query(description="The cursor of the last reply; none: from the start.")]
Step = Annotated[int | None, Query(ge=0, le=LARGEST_STEP)]


@router.get("/runs", response_model=RunListReply)
async def list_runs(request: Request) -> Response:
    """Every run with its data, size, figures and state, and what the metrics are called.

    `models_version` is another text whenever a checkpoint was written or removed.
    """
    services = services_of(request)

    def read() -> object:
        runs = services.store.runs()
        # Before the rows: what changes meanwhile is seen the next time.
        version = _models_version(runs.values())
        rows = [services.followed.row(id, run).to_json() for id, run in runs.items()]
        return {"runs": rows, "models_version": version, "metrics": [_metric_json(name) for name in METRICS]}

    return await read_reply(services, read)


@router.get("/differences", response_model=DifferencesReply)
async def compare_settings(
    request: Request, run: Annotated[list[RunId], Query(min_length=2, max_length=MAX_COMPARED)]
) -> Response:
    """The settings in which runs differ: ?run=A&run=B."""
    services = services_of(request)

    def read() -> object:
        configs = [services.followed.files(find_run(services.store, id)).config for id in run]
        return {"runs": run, "differences": [difference.to_json() for difference in find_differences(configs)]}

    return await read_reply(services, read)


@router.get("/runs/{id:path}/records", response_model=RecordsReply)
async def read_records(request: Request, id: str, cursor: CursorText = None) -> Response:
    """The metrics records after a cursor; those of a resumed run begin again, with reset."""
    services = services_of(request)
    position = _cursor(cursor)
    return await read_reply(
        services, lambda: services.followed.records(find_run(services.store, id), position).to_json("records")
    )


@router.get("/runs/{id:path}/samples", response_model=SamplesReply)
async def read_samples(request: Request, id: str, cursor: CursorText = None) -> Response:
    """The samples after a cursor; those of a resumed run begin again, with reset."""
    services = services_of(request)
    position = _cursor(cursor)
    return await read_reply(
        services, lambda: services.followed.samples(find_run(services.store, id), position).to_json("samples")
    )


@router.get("/runs/{id:path}/series", response_model=SeriesReply)
async def read_series(
    request: Request,
    id: str,
    metric: Annotated[list[str] | None, Query(max_length=len(METRICS))] = None,
    start: Step = None,
    stop: Step = None,
    buckets: Annotated[int, Query(ge=1, le=MAX_BUCKETS)] = 2000,
) -> Response:
    """Metrics as points, or in buckets of their mean and range if the steps from start to stop have very many."""
    services = services_of(request)
    keys = [known.key for known in METRICS.values()]
    for key in metric or ():
        if key not in keys:
            raise RequestError(
                f'there is no metric "{shortened(key)}". Choose from: {", ".join(keys)}.', param="metric"
            )
    first, last = start or 0, math.inf if stop is None else stop
    return await read_reply(
        services,
        lambda: services.followed.series(find_run(services.store, id), metric, first, last, buckets).to_json(),
    )


@router.get("/runs/{id:path}", response_model=RunReply)
async def read_run(request: Request, id: str) -> Response:
    """A run: its row in the table, configuration, plan, baselines, summary, and checkpoints as models.

    A checkpoint has the validation loss and bits per byte of its step, or null if there was no evaluation then.
    """
    services = services_of(request)

    def read() -> object:
        run = find_run(services.store, id)
        row = services.followed.row(id, run)
        files = services.followed.files(run).to_json() if row.problem is None else {}
        return {"row": row.to_json(), **files, "models": _checkpoints_json(services, id, run)}

    return await read_reply(services, read)


def find_run(store: ModelStore, id: str) -> RunFolder:
    """The run with an id; raises `RequestError` (404)."""
    runs = store.runs()
    if id not in runs:
        available = f"Available: {', '.join(list(runs)[:10])}." if runs else "There are none yet."
        raise RequestError(f'there is no run "{shortened(id)}". {available}', status=404, code="run_not_found")
    return runs[id]


def _cursor(text: str | None) -> Cursor | None:
    try:
        return None if text is None else Cursor.parse(text)
    except ValueError:
        raise RequestError(
            f"cursor {shortened(text or '')!r} is not one of this server. Omit it to read from the start.",
            param="cursor",
        ) from None


def _models_version(runs: Iterable[RunFolder]) -> str:
    """A text for when the folders of checkpoints changed last, which is cheaper to read than what is in them."""
    changed: list[int | None] = []
    for run in runs:
        try:
            changed.append(run.checkpoints.stat().st_mtime_ns)
        except OSError:  # there is none yet
            changed.append(None)
    return f"{zlib.crc32(repr(changed).encode()):08x}"


def _checkpoints_json(services: Services, id: str, run: RunFolder) -> list[dict[str, object]]:
    refs = {ref: ref.step for ref in services.store.list() if ref.run == id and ref.id != id and ref.step is not None}
    losses, bits = (
        services.followed.at_steps(run, METRICS[name].key, set(refs.values()))
        for name in ("val_loss", "val_bits_per_byte")
    )
    return [
        {**model_json(ref), "val_loss": losses.get(step), "val_bits_per_byte": bits.get(step)}
        for ref, step in refs.items()
    ]


def _metric_json(name: str) -> dict[str, object]:
    metric = METRICS[name]
    return {"key": metric.key, "label": metric.label, "unit": metric.unit}
