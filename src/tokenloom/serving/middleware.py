"""What holds for every request and reply: who may ask, how long a body may be, and what a disconnection cancels.

Each class wraps an ASGI application, without Starlette's BaseHTTPMiddleware, which hides disconnections.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import uuid
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenloom.serving.errors import RequestError
from tokenloom.serving.replies import error_reply
from tokenloom.serving.server_metrics import ServerMetrics
from tokenloom.serving.turns import Turns

MAX_BODY_BYTES = 8 * 1024**2

_REPLY_HEADERS = [
    (b"content-security-policy", b"default-src 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_HEALTH = "/health"
_PUBLIC_PATHS = ("/", _HEALTH)
_PUBLIC_FOLDER = "/page/"


class ReplyHeaders:
    """Counts every reply, and adds an id and headers that restrict what a browser does with it."""

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = f"req-{uuid.uuid4().hex}".encode()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", request_id), *_REPLY_HEADERS]
                message = {**message, "headers": headers}
                self._metrics.replies.labels(message["status"]).inc()
            await send(message)

        return await self._app(scope, receive, send_with_headers)


class RequestChecks:
    """Refuses requests without the key, those that a page of another site made a browser send, and other types of body.

    A page that resolves its own name to this machine is recognized by the Host header; other pages by Origin, or
    because browsers send JSON to other sites only with permission, which is never given. If the server is bound to an
    address that other machines reach, any host is accepted: its names are not known, and the key is required.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool, api_key: str | None) -> None:
        self._app = app
        self._loopback_only = loopback_only
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            try:
                self._check(scope["method"], scope["path"], headers)
            except RequestError as error:
                return await error_reply(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_allowed_host(host, loopback_only=self._loopback_only):
            raise RequestError(
                "the Host header is not a name of this server. Use http://localhost, or its IP address.", status=403
            )
        if method not in ("GET", "HEAD") and origin is not None and origin.partition("://")[2] != host:
            raise RequestError("requests from pages of other sites are refused (Origin header).", status=403)
        if self._api_key is not None and not is_public(path):
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not secrets.compare_digest(key.strip().encode(), self._api_key.encode()):
                raise RequestError(
                    "the API key is missing or wrong. Send the key of tokenloom serve --api-key: "
                    "Authorization: Bearer KEY",
                    status=401,
                    code="invalid_api_key",
                )
        if method == "POST" and _has_body(headers) and not _is_json(headers.get("content-type", "")):
            raise RequestError(
                "the body must be JSON. With curl, add: -H 'Content-Type: application/json'",
                status=415,
                code="unsupported_media_type",
            )


class BufferedBody:
    """Reads the body before the application starts, and cancels the application when the client disconnects.

    A body that is too long is refused as soon as that is known, also without a Content-Length.
    """

    def __init__(self, app: ASGIApp, *, seconds: float, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            body = await self._read(scope, receive)
        except RequestError as error:
            return await error_reply(error)(scope, receive, send)
        if body is not None:
            await self._run(scope, body, receive, send)
        return None

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if the client disconnects before its end. Raises `RequestError`."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(length) > self._max_bytes:
            raise self._too_long()
        parts, size = list[bytes](), 0
        try:
            async with asyncio.timeout(self._seconds):
                while (message := await receive())["type"] == "http.request":
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max_bytes:
                        raise self._too_long()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise RequestError(
                f"the body was not received within {self._seconds:g} s. Send the request again.", status=408
            ) from None
        return None

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        disconnected, is_complete = asyncio.Event(), False

        async def receive_buffered() -> Message:
            if messages:
                return messages.pop()
            await disconnected.wait()
            return {"type": "http.disconnect"}

        async def send_noting_the_end(message: Message) -> None:
            nonlocal is_complete
            await send(message)
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        application = asyncio.ensure_future(self._app(scope, receive_buffered, send_noting_the_end))
        disconnection = asyncio.ensure_future(_disconnection(receive))
        try:
            await asyncio.wait((application, disconnection), return_when=asyncio.FIRST_COMPLETED)
            disconnected.set()
            if not application.done() and not is_complete:
                application.cancel()
                with suppress(asyncio.CancelledError):
                    await application
            else:
                await application
        finally:
            application.cancel()
            disconnection.cancel()

    def _too_long(self) -> RequestError:
        return RequestError(
            f"the body is longer than {self._max_bytes:,} bytes. Send several smaller requests.",
            status=413,
            code="request_too_large",
        )


class RequestTurns:
    """Lets requests begin in turns, so that many that arrive together delay nothing else; /health needs no turn."""

    def __init__(self, app: ASGIApp, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != _HEALTH:
            await self._turns.wait()
        return await self._app(scope, receive, send)


def is_allowed_host(host: str, *, loopback_only: bool) -> bool:
    """Whether a Host header is well formed and, if `loopback_only`, names this machine."""
    match = _HOST.fullmatch(host)
    return match is not None and (not loopback_only or is_loopback(match[1]))


def is_loopback(host: str) -> bool:
    """Whether a host name or an IP address, with or without brackets, is that of the loopback interface."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_public(path: str) -> bool:
    """Whether a path is served without the key: the state of the server, and the files of the page."""
    return path in _PUBLIC_PATHS or path.startswith(_PUBLIC_FOLDER)


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
