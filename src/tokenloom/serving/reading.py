"""Replies with what is read from disk when a client asks for it."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from tokenloom.errors import CheckpointError, ConfigError
from tokenloom.serving.errors import RequestError
from tokenloom.serving.metric_columns import with_number_texts
from tokenloom.serving.replies import LongJsonReply
from tokenloom.serving.services import Services


async def read_reply(services: Services, read: Callable[[], object]) -> Response:
    """The reply with what `read` finds on disk, read in another thread; raises `RequestError` for what is broken."""

    def render() -> Response:
        try:
            return LongJsonReply(with_number_texts(read()))
        except (CheckpointError, ConfigError) as error:  # a broken file is the run's fault, not the server's
            raise RequestError(str(error), status=409, code="corrupt_run") from error
        except FileNotFoundError:
            raise RequestError("the run was removed. List the runs again.", status=404, code="run_not_found") from None
        except OSError as error:
            message = f"a file of the run cannot be read: {error.strerror}. Check its permissions."
            raise RequestError(message, status=409, code="corrupt_run") from error

    return await services.in_reading_thread(render)
