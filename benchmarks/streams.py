"""Streams of completions from a server: how many tokens they receive in a second.

Each stream has a connection of its own, and requests the next completion when one has ended.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LONGEST_WAIT = 600.0  # seconds


@dataclass
class Streams:
    """Connections to a server, of which each counts what it receives, until `stop`.

    The model always generates the same token, so that the length of the text tells how many there are: one event may
    have the text of several.
    """

    port: int
    body: Mapping[str, object]
    token_length: int
    """Characters of the token."""
    received: list[tuple[float, int]] = field(default_factory=list)
    """When something was received, and how many tokens."""
    errors: list[str] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _connections: list[http.client.HTTPConnection] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, count: int) -> None:
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LONGEST_WAIT)
            connection.connect()
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._read, args=(connection,), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close the connections, also those that wait for a server that answers one request at a time."""
        self._is_over.set()
        for connection in self._connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _read(self, connection: http.client.HTTPConnection) -> None:
        try:
            while not self._is_over.is_set():
                reply = self._reply(connection)
                if reply.status != 200:
                    raise RuntimeError(f"status {reply.status}: {reply.read(300)!r}")
                for line in reply:
                    if line.startswith(b"data: {"):
                        length = sum(len(choice["text"]) for choice in json.loads(line[6:])["choices"])
                        self.received.append((time.monotonic(), length // self.token_length))
        except (OSError, RuntimeError, ValueError, KeyError, http.client.HTTPException) as error:
            if not self._is_over.is_set():
                self.errors.append(str(error) or type(error).__name__)
        finally:
            connection.close()

    def _reply(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        """The reply to the next request; on a new connection if the server has closed this one after the last reply."""
        try:
            return self._request(connection)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            connection.close()
            if self._is_over.is_set():
                raise
            return self._request(connection)

    def _request(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        content = json.dumps({**self.body, "stream": True})
        connection.request("POST", "/v1/completions", content, {"Content-Type": "application/json"})
        return connection.getresponse()


def measure_streams(
    port: int,
    body: Mapping[str, object],
    count: int,
    *,
    token_length: int,
    windows: int,
    seconds: float,
    warmup: float,
) -> list[float]:
    """Tokens per second of all streams together, in several windows of time one after the other.

    The first window begins `warmup` seconds after the first token. Raises `RuntimeError` if a stream fails, or if
    there is no token within a minute.
    """
    streams = Streams(port, body, token_length)
    streams.start(count)
    try:
        started = time.monotonic()
        while not streams.received and not streams.errors and time.monotonic() < started + 60:
            time.sleep(0.01)
        start = time.monotonic() + warmup
        end = start + windows * seconds
        while time.monotonic() < end and not streams.errors:
            time.sleep(0.05)
    finally:
        streams.stop()
    if streams.errors:
        raise RuntimeError(streams.errors[0])
    return rates(streams.received, start, windows, seconds)


def rates(received: Sequence[tuple[float, int]], start: float, windows: int, seconds: float) -> list[float]:
    """Tokens per second in each window after `start`; raises `RuntimeError` if there are none at all."""
    totals = [0] * windows
    for moment, tokens in received:
        number = int((moment - start) // seconds)
        if 0 <= number < windows:
            totals[number] += tokens
    if not any(totals):
        raise RuntimeError("no tokens were received")
    return [total / seconds for total in totals]
