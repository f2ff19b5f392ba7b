"""The ASGI application of the server: routes, errors, and what surrounds them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from tokenloom import __version__
from tokenloom.errors import DataError, TokenizerError, TokenloomError, UsageError, shortened
from tokenloom.serving import copied_api, explanation_api, models_api, openai_api, runs_api, status_api, tokenizer_api
from tokenloom.serving.errors import RequestError
from tokenloom.serving.middleware import BufferedBody, ReplyHeaders, RequestChecks, RequestTurns
from tokenloom.serving.page_files import PageFiles
from tokenloom.serving.replies import error_reply, internal_error
from tokenloom.serving.reply_schema import Reply
from tokenloom.serving.request_validation import invalid_request
from tokenloom.serving.services import Services


class ErrorDetails(Reply):
    """What was wrong with a request."""

    message: str
    type: str
    param: str | None
    """The field at fault."""
    code: str | None


class ErrorReply(Reply):
    """The reply to a request that failed, in OpenAI's format."""

    error: ErrorDetails


def create_app(
    services: Services,
    *,
    loopback_only: bool = True,
    api_key: str | None = None,
    body_seconds: float,
) -> ASGIApp:
    """The application, which starts the engine thread with its lifespan; a body must arrive in `body_seconds`."""
    api = FastAPI(
        title="Tokenloom",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,  # these pages load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": ErrorReply, "description": "An error"}},
    )
    api.state.services = services
    for routes in (openai_api, tokenizer_api, status_api, runs_api, copied_api, models_api, explanation_api):
        api.include_router(routes.router)
    page = PageFiles()
    api.add_route("/", page.index, include_in_schema=False)
    api.add_route("/page/{path:path}", page.file, include_in_schema=False)
    for kind in (TokenloomError, RequestValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, _reply_to_error)
    app: ASGIApp = BufferedBody(RequestTurns(api, services.turns), seconds=body_seconds)
    app = RequestChecks(app, loopback_only=loopback_only, api_key=api_key)
    return ReplyHeaders(app, services.metrics)


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncGenerator[None]:
    services: Services = api.state.services
    services.engine.start()
    yield
    services.close()


async def _reply_to_error(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return error_reply(_request_error(request, error), headers)


def _request_error(request: Request, error: Exception) -> RequestError:
    match error:
        case RequestError():
            return error
        case RequestValidationError():
            return invalid_request(error.errors())
        case HTTPException():
            return _http_error(request, error)
        case UsageError() | TokenizerError() | DataError():
            return RequestError(str(error))
        case TokenloomError():
            return RequestError(str(error), status=500)
        case _:
            return internal_error()


def _http_error(request: Request, error: HTTPException) -> RequestError:
    """The error of a request that no route takes."""
    path, method = shortened(request.url.path), shortened(request.method)
    if error.status_code == 404 and path in openai_api.NOT_SUPPORTED:
        message = "the models are base models without a chat template; use /v1/completions."
    elif error.status_code == 404:
        message = f"there is nothing at {path}. GET /openapi.json lists what there is."
    elif error.status_code == 405:
        message = f"{path} does not take {method}. Use one of the methods in the header Allow."
    elif error.status_code == 400:  # FastAPI gives no reason
        message = "the body is not JSON: it is nested too deeply, is not UTF-8, or has a number of thousands of digits."
    else:
        message = str(error.detail)
    return RequestError(message, status=error.status_code, code="not_found" if error.status_code == 404 else None)
