"""Replies: JSON that every client can read, errors in OpenAI's format, and streams of events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tokenloom.serving.errors import RequestError
from tokenloom.strict_json import dump_json

_logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1


class JsonReply(Response):
    """A reply in JSON, in ASCII: it can quote any text of a request, also what is not valid Unicode."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return dump_json(content).encode("ascii")


class LongJsonReply(JsonReply):
    """A reply in JSON that may be long, to be created in another thread than that of the event loop.

    Lists of objects are written one object at a time, since JSON's encoder lets no other thread run until it returns.
    """

    def render(self, content: object) -> bytes:
        return _in_parts(content).encode("ascii")


def error_reply(error: RequestError, headers: Mapping[str, str] | None = None) -> JsonReply:
    """The reply to a request that failed; a server that is busy says when to try again."""
    headers = dict(headers or {})
    if error.status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    elif error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonReply(error.to_json(), status_code=error.status, headers=headers)


class EventStream(Response):
    """Server-sent events, as `event` writes them, then `data: [DONE]`.

    An exception in `events` becomes an event with an error, since the status was sent before. `close` is called in any
    case, also if the client disconnects before the first event.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for body in self._events:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            except Exception as error:
                body = event(_request_error(error).to_json())
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        finally:
            self._close()


def event(value: object) -> bytes:
    """A server-sent event with the JSON of a value."""
    return f"data: {dump_json(value)}\n\n".encode("ascii")


def internal_error() -> RequestError:
    """The error of a request that failed by a mistake of the server."""
    return RequestError("the server failed to answer. See its log.", status=500, code="internal_error")


def _request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    _logger.error("a stream failed", exc_info=error)
    return internal_error()


def _in_parts(value: object) -> str:
    """The JSON of a value, of which lists of objects are encoded object by object."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return f"{{{', '.join(f'{dump_json(key)}: {_in_parts(item)}' for key, item in items)}}}"
    if isinstance(value, list):
        elements = cast("list[object]", value)
        if elements and isinstance(elements[0], Mapping | list):
            return f"[{', '.join(map(dump_json, elements))}]"
    return dump_json(cast("object", value))
