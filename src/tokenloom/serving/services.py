"""What the routes of the server share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from starlette.requests import Request

from tokenloom.serving.engine_thread import EngineThread
from tokenloom.serving.errors import RequestError
from tokenloom.serving.follow import FollowedRuns
from tokenloom.serving.models import AcquiredModel, ModelRef, ModelStore
from tokenloom.serving.server_metrics import ServerMetrics
from tokenloom.serving.threads import Threads
from tokenloom.serving.training_texts import TrainingTexts
from tokenloom.serving.turns import Turns

T = TypeVar("T")

LOADING_THREADS = 16  # they wait for one another while a model is loaded
TEXT_THREADS = 2
READING_THREADS = 2  # apart from loading, so that curves are drawn while a model is loaded
EXPLAINING_THREADS = 1  # more would slow down one another, and the engine
MAX_EXPLAINING = 16
"""Requests for explanations that wait or run; more are refused."""
TURNS = 4
"""Requests that begin and streams that write in an iteration of the event loop; each takes less than a millisecond."""
_STOP_SECONDS = 1.0


@dataclass
class Services:
    """The models, the engine thread, the metrics, threads for work that would block the event loop, and its turns."""

    store: ModelStore
    engine: EngineThread
    metrics: ServerMetrics
    loading: Threads = field(default_factory=lambda: Threads(LOADING_THREADS, "tokenloom-load"))
    text: Threads = field(default_factory=lambda: Threads(TEXT_THREADS, "tokenloom-text"))
    reading: Threads = field(default_factory=lambda: Threads(READING_THREADS, "tokenloom-read"))
    explaining: Threads = field(default_factory=lambda: Threads(EXPLAINING_THREADS, "tokenloom-explain"))
    followed: FollowedRuns = field(default_factory=FollowedRuns)
    turns: Turns = field(default_factory=lambda: Turns(TURNS))
    training_texts: TrainingTexts = field(default_factory=TrainingTexts)
    _explaining: int = 0

    async def resolve(self, id: str | None) -> ModelRef:
        """The model with this id; raises `ModelNotFound`."""
        return await self.in_loading_thread(lambda: self.store.resolve(id))

    async def acquire(self, id: str | None) -> AcquiredModel:
        """The model with this id, which is loaded if necessary and has to be released."""
        loading = asyncio.ensure_future(self.loading.run(lambda: self.store.acquire(self.store.resolve(id))))
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:  # the client has disconnected, but the thread cannot be stopped
            loading.add_done_callback(_release)
            raise

    async def in_loading_thread(self, work: Callable[[], T]) -> T:
        """The result of work that waits for models or looks for them."""
        return await self.loading.run(work)

    async def in_text_thread(self, work: Callable[[], T]) -> T:
        """The result of work on text, such as encoding it."""
        return await self.text.run(work)

    async def in_reading_thread(self, work: Callable[[], T]) -> T:
        """The result of work that reads the files of runs."""
        return await self.reading.run(work)

    async def in_explaining_thread(self, work: Callable[[], T]) -> T:
        """The result of work with a model that takes seconds; raises `RequestError` (503) if much of it waits."""
        if self._explaining >= MAX_EXPLAINING:
            raise RequestError("too many texts are being explained. Try again.", status=503, code="overloaded")
        self._explaining += 1
        try:
            return await self.explaining.run(work)
        finally:
            self._explaining -= 1

    def close(self) -> None:
        """End the engine thread, if it ends within a second."""
        self.engine.stop(_STOP_SECONDS)


def services_of(request: Request) -> Services:
    """The services of the application that got the request."""
    return cast("Services", request.app.state.services)


def _release(loading: asyncio.Future[AcquiredModel]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().release()
