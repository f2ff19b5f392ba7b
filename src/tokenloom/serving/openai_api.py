"""OpenAI's API, as far as a base model has it: models and completions."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from tokenloom import __version__
from tokenloom.serving.choices import Piece
from tokenloom.serving.completion_reply import CompletionReply, choice_json
from tokenloom.serving.completion_request import CompletionRequest
from tokenloom.serving.completions import Completion, Pieces
from tokenloom.serving.models import ModelRef
from tokenloom.serving.replies import EventStream, JsonReply, LongJsonReply, event
from tokenloom.serving.reply_schema import Reply
from tokenloom.serving.services import services_of
from tokenloom.strict_json import dump_json

router = APIRouter(prefix="/v1", tags=["OpenAI"])

# What clients of chat models ask for.
NOT_SUPPORTED = ("/v1/chat/completions", "/v1/responses")


class ModelReply(Reply):
    """A model that can be named in a request."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["tokenloom"] = "tokenloom"


class ModelDetails(ModelReply):
    """A model with the length of its context."""

    max_model_len: int


class ModelList(Reply):
    """The models that are served now; the first is that of requests that name none."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


@router.get("/models", response_model=ModelList)
async def list_models(request: Request) -> Response:
    """List the models and checkpoints that are served."""
    services = services_of(request)
    refs = await services.in_loading_thread(services.store.list)
    return JsonReply(ModelList(data=[ModelReply(id=ref.id, created=ref.created) for ref in refs]).model_dump())


@router.get("/models/{id:path}", response_model=ModelDetails)
async def retrieve_model(id: str, request: Request) -> Response:
    """Describe one model."""
    services = services_of(request)

    def details() -> tuple[ModelRef, int]:
        ref = services.store.resolve(id)
        return ref, services.store.config(ref).block_size

    ref, context = await services.in_loading_thread(details)
    return JsonReply(ModelDetails(id=ref.id, created=ref.created, max_model_len=context).model_dump())


# Of each event: the JSON of a CompletionReply or of an error, or [DONE].
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_EVENTS = {"text/event-stream": {"schema": _EVENT}}
# Where an event without choices is divided. A string that contains it has its quotation marks escaped.
_NO_CHOICES = b'"choices": []'


@router.post("/completions", response_model=CompletionReply, responses={200: {"content": _EVENTS}})
async def create_completion(body: CompletionRequest, request: Request) -> Response:
    """Continue one or several prompts."""
    completion = await Completion.start(body, services_of(request))
    replies = _Replies(completion, body)
    if body.stream:
        return EventStream(replies.events(), completion.close)
    try:
        return await replies.whole()
    finally:
        completion.close()


class _Replies:
    """The reply to a request, as a whole or as events."""

    def __init__(self, completion: Completion, request: CompletionRequest) -> None:
        self._completion = completion
        self._has_logprobs = request.logprobs is not None
        self._include_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        # All that the events of a stream have in common is encoded once.
        usage = {"usage": None} if self._include_usage else {}
        self._before, self._after = event(self._reply([], usage)).split(_NO_CHOICES)

    async def whole(self) -> Response:
        choices: dict[int, list[Piece]] = defaultdict(list)

        def render() -> Response:
            written = [self._choice(index, choices[index]) for index in sorted(choices)]
            return LongJsonReply(self._reply(written, self._usage()))

        async for pieces in self._completion.results(list):
            for index, piece in pieces:
                choices[index].append(piece)
        entries = sum(len(piece.entries) for pieces in choices.values() for piece in pieces)
        return await self._completion.in_thread_if_long(entries, render)

    async def events(self) -> AsyncIterator[bytes]:
        async for body in self._completion.results(self._events):
            if body:
                yield body
        if self._include_usage:
            yield event(self._reply([], self._usage()))

    def _events(self, pieces: Pieces) -> bytes:
        """An event for each choice to which the pieces add something."""
        choices: dict[int, list[Piece]] = defaultdict(list)
        for index, piece in pieces:
            if piece.text or piece.entries or piece.finish_reason is not None:
                choices[index].append(piece)
        return b"".join([self._event(self._choice(index, added)) for index, added in choices.items()])

    def _event(self, choice: Mapping[str, object]) -> bytes:
        return b'%b"choices": [%b]%b' % (self._before, dump_json(choice).encode("ascii"), self._after)

    def _reply(self, choices: Sequence[object], usage: Mapping[str, object]) -> dict[str, object]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._completion.model,
            "system_fingerprint": f"tokenloom-{__version__}/{self._completion.model}",
            "choices": choices,
            **usage,
            "seed": self._completion.seed,
        }

    def _choice(self, index: int, pieces: Sequence[Piece]) -> dict[str, object]:
        return choice_json(index, pieces, has_logprobs=self._has_logprobs)

    def _usage(self) -> dict[str, object]:
        return {"usage": self._completion.usage.model_dump()}
