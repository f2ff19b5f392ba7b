"""The tokenizers of the models over HTTP, as clients use them that have no tokenizer of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from tokenloom.errors import TokenizerError
from tokenloom.serving.completion_request import TokenId, UnicodeText
from tokenloom.serving.errors import RequestError
from tokenloom.serving.replies import JsonReply
from tokenloom.serving.reply_schema import Reply
from tokenloom.serving.request_schema import Body
from tokenloom.serving.services import services_of

router = APIRouter(tags=["tokenizers"])


class TokenizeRequest(Body):
    """A text to encode."""

    model: UnicodeText | None = None
    """An id from GET /v1/models; the first one by default."""
    prompt: UnicodeText
    """The text; <|endoftext|> in it is one token."""
    add_special_tokens: bool | None = None
    """Accepted and not used: the tokenizers add none."""


class Tokens(Reply):
    """The tokens of a text."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeRequest(Body):
    """Tokens to decode."""

    model: UnicodeText | None = None
    """An id from GET /v1/models; the first one by default."""
    tokens: list[TokenId]
    """Their ids."""


class Text(Reply):
    """The text of tokens."""

    prompt: str


class TokenizerInfo(BaseModel):
    """What tokenizer_config.json says."""

    model_config = ConfigDict(extra="allow")

    tokenizer_class: str
    eos_token: Annotated[str, Field(min_length=1)]


@router.post("/tokenize", response_model=Tokens)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Encode a text."""
    services = services_of(request)
    with await services.acquire(body.model) as acquired:
        loaded = acquired.loaded
        try:
            ids = await services.in_text_thread(lambda: loaded.tokenizer.encode(body.prompt))
        except TokenizerError as error:
            raise RequestError(str(error), param="prompt") from None
        context = loaded.model.config.block_size
        return JsonReply(Tokens(tokens=ids, count=len(ids), max_model_len=context).model_dump())


@router.post("/detokenize", response_model=Text)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """Decode tokens; bytes that are not UTF-8 become U+FFFD."""
    services = services_of(request)
    with await services.acquire(body.model) as acquired:
        tokenizer = acquired.loaded.tokenizer
        try:
            text = await services.in_text_thread(lambda: tokenizer.decode(body.tokens))
        except TokenizerError as error:
            raise RequestError(str(error), param="tokens") from None
        return JsonReply(Text(prompt=text).model_dump())


@router.get("/tokenizer_info", response_model=TokenizerInfo)
async def tokenizer_info(request: Request, model: Annotated[str | None, Query()] = None) -> Response:
    """Describe the tokenizer of a model, as its tokenizer_config.json does."""
    services = services_of(request)
    with await services.acquire(model) as acquired:
        return JsonReply(acquired.loaded.tokenizer.config_json())
