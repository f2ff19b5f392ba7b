"""The server: a socket, and the application that answers on it in a thread of its own until it is stopped."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import uvicorn

from tokenloom.errors import TokenloomError, UsageError
from tokenloom.serving.app import create_app
from tokenloom.serving.connection import connections
from tokenloom.serving.engine_thread import EngineThread, Limits
from tokenloom.serving.errors import RequestError
from tokenloom.serving.middleware import is_loopback
from tokenloom.serving.models import ModelStore
from tokenloom.serving.server_metrics import ServerMetrics
from tokenloom.serving.services import Services

DRAIN_SECONDS = 3.0
"""How long requests continue after the server was told to stop."""
_CLOSE_SECONDS = 4  # from the same moment, until connections are closed that have not ended
_BACKLOG = 1024


@dataclass(frozen=True)
class Timeouts:
    """How long the server waits for a client, in seconds."""

    body: float = 30.0
    """The longest time in which a body must be received."""
    reader: float = 30.0
    """The longest time in which a reader may accept nothing of a reply."""


class Server:
    """Serves models over HTTP, from `start` to `stop` or as a context.

    Raises `UsageError` if it cannot listen on the host and port.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        host: str,
        port: int,
        api_key: str | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        timeouts, loopback_only = timeouts or Timeouts(), is_loopback(host)
        if api_key is not None and re.fullmatch(r"[!-~]+", api_key) is None:
            raise UsageError("the API key must be visible ASCII characters without spaces. Choose another one.")
        if not loopback_only and api_key is None:
            raise UsageError(
                f"host {host} can be reached by other machines, which could use the server without a key. "
                "Choose a key: --api-key KEY"
            )
        self.store = store
        engine = EngineThread(limits)
        self.services = Services(store, engine, ServerMetrics(engine))
        self._socket = _listen(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        app = create_app(self.services, loopback_only=loopback_only, api_key=api_key, body_seconds=timeouts.body)
        config = uvicorn.Config(
            app,
            http=connections(timeouts.reader),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_CLOSE_SECONDS,
        )
        self._uvicorn = _Uvicorn(config, self.services)
        self._thread = threading.Thread(target=self._run, name="tokenloom-server", daemon=True)
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """The address of the server, for a client on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self) -> None:
        """Answer requests, which has begun when this returns; does nothing the second time."""
        if self._thread.ident is not None:
            return
        self._thread.start()
        self._uvicorn.is_started.wait()
        if self._error is not None:
            raise TokenloomError(f"the server did not start: {self._error}. Start it again.") from self._error

    def wait(self) -> None:
        """Wait until the server has ended; raises `TokenloomError` if it was not stopped."""
        self._thread.join()
        if self._error is not None:
            raise TokenloomError(f"the server has failed: {self._error}. Start it again.") from self._error

    def stop(self) -> None:
        """Accept nothing more, let requests continue for a few seconds, and end."""
        self._uvicorn.should_exit = True
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._uvicorn.serve([self._socket]))
        except BaseException as error:  # uvicorn ends the thread with SystemExit
            self._error = error
        finally:
            self._socket.close()  # uvicorn does so only if it is stopped
            self._uvicorn.is_started.set()


class _Uvicorn(uvicorn.Server):
    """uvicorn, which tells others when it has started, and ends what is in progress when it stops."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self.is_started = threading.Event()
        self._services = services

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        engine = self._services.engine
        engine.drain()
        error = RequestError("the server has stopped. Try again when it has restarted.", status=503, code="stopping")
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, engine.fail_all, error)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it only for sockets that were created with the number of the protocol;
        # without it, a reply in two writes waits for the client's delayed acknowledgement, 40 ms on Linux.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use. Choose another one: --port {port + 1}") from None
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host}, port {port}: {reason}. Choose another --host or --port.") from None
