"""A connection of the server: HTTP/1.1, dropped when its reader accepts nothing for a while."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol


def connections(reader_seconds: float) -> type[asyncio.Protocol]:
    """The protocol of connections, for uvicorn; a reader may accept nothing for so many seconds."""
    return cast("type[asyncio.Protocol]", partial(_Connection, reader_seconds=reader_seconds))  # uvicorn only calls it


class _Connection(H11Protocol):
    """Watches the reader only while the buffer is full, so that an event of a stream starts no timer.

    The application sees a disconnection. The connection is aborted, since closing it would wait for the reader.
    """

    def __init__(self, *args: Any, reader_seconds: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reader_seconds = reader_seconds
        self._check: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._check_later()

    def resume_writing(self) -> None:
        self._stop_checking()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_checking()
        super().connection_lost(exc)

    def _check_later(self) -> None:
        buffered = self.transport.get_write_buffer_size()
        self._check = self.loop.call_later(self._reader_seconds, self._drop_if_stalled, buffered)

    def _drop_if_stalled(self, buffered: int) -> None:
        if self.transport.get_write_buffer_size() < buffered:
            self._check_later()
        else:
            self.transport.abort()

    def _stop_checking(self) -> None:
        if self._check is not None:
            self._check.cancel()
