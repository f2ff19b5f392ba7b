"""The state of the server: its health, and its metrics for Prometheus."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from tokenloom.serving.replies import JsonReply
from tokenloom.serving.reply_schema import Reply
from tokenloom.serving.services import services_of

router = APIRouter(tags=["server"])


class Health(Reply):
    """Whether the server answers requests for completions."""

    status: Literal["ok", "failed", "stopping"]
    reason: str | None
    """Why the last step of a model failed."""
    running_sequences: int
    accepted_sequences: int


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(request: Request) -> Response:
    """Report whether the server works: 503 while it stops, and after a model failed until one succeeds."""
    engine = services_of(request).engine
    reason = engine.failure
    status = "stopping" if engine.is_draining else "failed" if reason is not None else "ok"
    reply = Health(status=status, reason=reason, running_sequences=engine.running, accepted_sequences=engine.accepted)
    return JsonReply(reply.model_dump(), status_code=200 if status == "ok" else 503)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """The metrics of the server, as text."""
    return Response(services_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})
