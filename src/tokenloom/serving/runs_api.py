"""Runs over HTTP: their table, files, metrics and samples, while they train."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tokenloom.errors import CheckpointError, ConfigError, shortened
from tokenloom.growing_file import Cursor
from tokenloom.metrics import METRICS
from tokenloom.reporting.run_table import find_differences
from tokenloom.run_folder import RunFolder
from tokenloom.serving.errors import RequestError
from tokenloom.serving.metric_columns import with_number_texts
from tokenloom.serving.models import ModelRef, ModelStore
from tokenloom.serving.replies import JsonReply
from tokenloom.serving.services import Services, services_of

MAX_COMPARED = 8  # runs
MAX_BUCKETS = 4096
LARGEST_STEP = 2**53

router = APIRouter(prefix="/api", tags=["runs"])

RunId = Annotated[str, Query(description="An id of GET /api/runs.", max_length=4096)]
CursorText = Annotated[str | None, Query(description="The cursor of the last reply; none: from the start.")]
Step = Annotated[int | None, Query(ge=0, le=LARGEST_STEP)]


@router.get("/runs")
async def list_runs(request: Request) -> Response:
    """Every run with its data, size, figures and state, and what the metrics are called."""
    services = services_of(request)

    def read() -> object:
        rows = [services.followed.row(id, run).to_json() for id, run in services.store.runs().items()]
        return {"runs": rows, "metrics": [_metric_json(name) for name in METRICS]}

    return await _reply(services, read)


@router.get("/differences")
async def compare_settings(
    request: Request, run: Annotated[list[RunId], Query(min_length=2, max_length=MAX_COMPARED)]
) -> Response:
    """The settings in which runs differ: ?run=A&run=B."""
    services = services_of(request)

    def read() -> object:
        configs = [services.followed.files(_find(services.store, id)).config for id in run]
        return {"runs": run, "differences": [difference.to_json() for difference in find_differences(configs)]}

    return await _reply(services, read)


@router.get("/runs/{id:path}/records")
async def read_records(request: Request, id: str, cursor: CursorText = None) -> Response:
    """The metrics records after a cursor; those of a resumed run begin again, with reset."""
    services = services_of(request)
    position = _cursor(cursor)
    return await _reply(
        services, lambda: services.followed.records(_find(services.store, id), position).to_json("records")
    )


@router.get("/runs/{id:path}/samples")
async def read_samples(request: Request, id: str, cursor: CursorText = None) -> Response:
    """The samples after a cursor; those of a resumed run begin again, with reset."""
    services = services_of(request)
    position = _cursor(cursor)
    return await _reply(
        services, lambda: services.followed.samples(_find(services.store, id), position).to_json("samples")
    )


@router.get("/runs/{id:path}/series")
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
    return await _reply(
        services,
        lambda: services.followed.series(_find(services.store, id), metric, first, last, buckets).to_json(),
    )


@router.get("/runs/{id:path}")
async def read_run(request: Request, id: str) -> Response:
    """A run: its row in the table, configuration, plan, baselines, summary, and checkpoints as models."""
    services = services_of(request)

    def read() -> object:
        run = _find(services.store, id)
        row = services.followed.row(id, run)
        files = services.followed.files(run).to_json() if row.problem is None else {}
        refs = [ref for ref in services.store.list() if ref.run == id and ref.id != id]
        return {"row": row.to_json(), **files, "models": [_model_json(ref) for ref in refs]}

    return await _reply(services, read)


@router.get("/models")
async def list_models(request: Request) -> Response:
    """Every model and checkpoint, and which of them are in memory."""
    services = services_of(request)

    def read() -> object:
        sizes = {use.path: use.bytes for use in services.store.in_memory()}
        return {
            "models": [{**_model_json(ref), "memory_bytes": sizes.get(ref.path)} for ref in services.store.list()],
            "memory_bytes": sum(sizes.values()),
        }

    return await _reply(services, read)


@router.get("/models/{id:path}")
async def read_model(request: Request, id: str) -> Response:
    """A model with its configuration."""
    services = services_of(request)

    def read() -> object:
        ref = services.store.resolve(id)
        return {**_model_json(ref), "config": services.store.config(ref).model_dump(mode="json")}

    return await _reply(services, read)


async def _reply(services: Services, read: Callable[[], object]) -> Response:
    """The reply with what `read` finds on disk, read in another thread."""

    def render() -> Response:
        try:
            return JsonReply(with_number_texts(read()))
        except (CheckpointError, ConfigError) as error:  # a broken file is the run's fault, not the server's
            raise RequestError(str(error), status=409, code="corrupt_run") from error
        except FileNotFoundError:
            raise RequestError("the run was removed. List the runs again.", status=404, code="run_not_found") from None
        except OSError as error:
            message = f"a file of the run cannot be read: {error.strerror}. Check its permissions."
            raise RequestError(message, status=409, code="corrupt_run") from error

    return await services.in_reading_thread(render)


def _find(store: ModelStore, id: str) -> RunFolder:
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


def _metric_json(name: str) -> dict[str, object]:
    metric = METRICS[name]
    return {"key": metric.key, "label": metric.label, "unit": metric.unit}


def _model_json(ref: ModelRef) -> dict[str, object]:
    return {"id": ref.id, "name": ref.name, "run": ref.run, "step": ref.step, "created": ref.created}
