"""Connections whose reader is slow or reads nothing."""

import asyncio

import uvicorn
from uvicorn.server import ServerState

from tokenloom.serving.connection import connections


class Reader(asyncio.Transport):
    """What is left in the buffer of a connection at each look at it; the last value stays."""

    def __init__(self, buffered: list[int]) -> None:
        super().__init__()
        self.buffered = buffered
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.buffered.pop(0) if len(self.buffered) > 1 else self.buffered[0]

    def abort(self) -> None:
        self.aborted.set()


def connection_of(reader: Reader, seconds: float) -> uvicorn.protocols.http.h11_impl.H11Protocol:
    config = uvicorn.Config(lambda scope, receive, send: None, ws="none", log_config=None)
    connection = connections(seconds)(config=config, server_state=ServerState(), app_state={})
    connection.connection_made(reader)
    return connection


def test_a_reader_is_dropped_when_it_has_accepted_nothing_and_not_while_it_is_slow():
    async def run() -> None:
        reader = Reader([100, 99, 98, 97, 97])
        connection_of(reader, 0.001).pause_writing()
        await asyncio.wait_for(reader.aborted.wait(), 10)
        assert reader.buffered == [97]

    asyncio.run(run())


def test_a_reader_that_goes_on_or_leaves_is_not_dropped():
    async def run() -> None:
        for end in ("resume_writing", "connection_lost"):
            reader = Reader([100])
            connection = connection_of(reader, 0.001)
            connection.pause_writing()
            connection.resume_writing() if end == "resume_writing" else connection.connection_lost(OSError())
            later = Reader([100])  # whose time ends after that of the first
            connection_of(later, 0.002).pause_writing()
            await asyncio.wait_for(later.aborted.wait(), 10)
            assert not reader.aborted.is_set()

    asyncio.run(run())
