"""Texts explained over HTTP, with the numbers of `inspect`, `compare` and `generate`: predictions and attention."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, cast

import torch
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from tokenloom.evaluation.comparison import compare_inspections
from tokenloom.evaluation.inspection import Inspection, Token, inspect_tokens
from tokenloom.generation.next_token import next_tokens
from tokenloom.model.attention_weights import attention_maps, attention_weights
from tokenloom.sampling_params import SMALLEST_TEMPERATURE, SamplingParams
from tokenloom.serving.errors import ModelNotFound, RequestError
from tokenloom.serving.explanation_replies import (
    AttentionMapsReply,
    AttentionReply,
    CompareReply,
    InspectReply,
    NextTokensReply,
)
from tokenloom.serving.metric_columns import with_number_texts
from tokenloom.serving.models import AcquiredModel
from tokenloom.serving.replies import LongJsonReply
from tokenloom.serving.request_schema import Body
from tokenloom.serving.services import services_of

MAX_CHARACTERS = 200_000
MAX_TOKENS = 16_384
MAX_ATTENTION_TOKENS = 256
MAP_CELLS = 32
"""Rows and columns of the map of a head."""
MAX_ALTERNATIVES = 50
MAX_CANDIDATES = 1000
LARGEST = 2**31 - 1

router = APIRouter(prefix="/api", tags=["explanations"])

ModelId = Annotated[str | None, Field(max_length=4096)]
TextField = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]


class InspectRequest(Body):
    """A text whose tokens are scored, as `tokenloom inspect` does."""

    text: TextField
    model: ModelId = None
    """An id from GET /v1/models; the first one by default."""
    top: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] = 10
    """Most likely tokens to list at each position."""
    context: Count | None = None
    """Tokens in a window; the model's block size by default."""
    stride: Count | None = None
    """Tokens between the starts of two windows; the context by default."""


class CompareRequest(Body):
    """A text under two models, as `tokenloom compare` does."""

    a: Annotated[str, Field(max_length=4096)]
    b: Annotated[str, Field(max_length=4096)]
    text: TextField
    context: Count | None = None
    stride: Count | None = None


class NextTokenRequest(Body):
    """A text, whose next token is predicted, and how it would be sampled."""

    text: TextField = ""
    """Empty: the start of a new text."""
    model: ModelId = None
    top: Annotated[int, Field(ge=1, le=MAX_CANDIDATES)] = 50
    """Most likely tokens to list."""
    temperature: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None


class HeadsRequest(Body):
    """A text, of which the attention is shown."""

    text: TextField
    model: ModelId = None
    truncate: bool = False
    """Use the first tokens of a text that has too many, instead of refusing it."""


class AttentionRequest(HeadsRequest):
    """A text, and the attention head whose weights are shown."""

    layer: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    """Counted from 0."""
    head: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    """Counted from 0."""


@router.post("/inspect", response_model=InspectReply)
async def inspect(request: Request, body: InspectRequest) -> Response:
    """The model's prediction at each token of a text: what `tokenloom inspect --json` prints."""
    services = services_of(request)
    with await services.acquire(body.model) as acquired:
        return await services.in_explaining_thread(
            lambda: _reply(
                {"model": acquired.ref.name}
                | _inspection(acquired, body.text, body.top, body.context, body.stride).to_json()
            )
        )


@router.post("/compare", response_model=CompareReply)
async def compare(request: Request, body: CompareRequest) -> Response:
    """The same text under two models, token by token or word by word: what `tokenloom compare --json` prints."""
    services = services_of(request)
    with ExitStack() as stack:
        models: list[AcquiredModel] = []
        for field, id in (("a", body.a), ("b", body.b)):
            try:
                models.append(stack.enter_context(await services.acquire(id)))
            except ModelNotFound as error:
                error.param = field
                raise

        def explain() -> Response:
            a, b = (_inspection(model, body.text, 0, body.context, body.stride) for model in models)
            return _reply(compare_inspections(body.text, (models[0].ref.name, models[1].ref.name), a, b).to_json())

        return await services.in_explaining_thread(explain)


@router.post("/next-token", response_model=NextTokensReply)
async def next_token(request: Request, body: NextTokenRequest) -> Response:
    """The most likely next tokens, before and after each sampling parameter."""
    if 0 < body.temperature < SMALLEST_TEMPERATURE:
        raise RequestError(f"temperature must be 0, or at least {SMALLEST_TEMPERATURE:g}.", param="temperature")
    sampling = SamplingParams(temperature=body.temperature, top_k=body.top_k, top_p=body.top_p, min_p=body.min_p)
    services = services_of(request)
    with await services.acquire(body.model) as acquired:
        loaded = acquired.loaded

        def explain() -> Response:
            found = next_tokens(loaded.model, loaded.tokenizer, body.text, sampling, body.top)
            return _reply({"model": acquired.ref.name} | found.to_json())

        return await services.in_explaining_thread(explain)


@router.post("/attention", response_model=AttentionReply)
async def attention(request: Request, body: AttentionRequest) -> Response:
    """The attention weights of one head: row t has the weights of token t for itself and all earlier tokens."""
    services = services_of(request)
    with await services.acquire(body.model) as acquired:
        return await services.in_explaining_thread(lambda: _reply(_attention(acquired, body)))


@router.post("/attention/heads", response_model=AttentionMapsReply)
async def attention_heads(request: Request, body: HeadsRequest) -> Response:
    """The attention of all heads as small maps of at most 32 × 32 cells: the largest weight in each, in percent."""
    services = services_of(request)
    with await services.acquire(body.model) as acquired:
        return await services.in_explaining_thread(lambda: _reply(_attention_heads(acquired, body)))


def _inspection(acquired: AcquiredModel, text: str, top: int, context: int | None, stride: int | None) -> Inspection:
    model, tokenizer = acquired.loaded.model, acquired.loaded.tokenizer
    ids = tokenizer.encode_array(text)
    if not 2 <= len(ids) <= MAX_TOKENS:
        raise RequestError(
            f"the text has {len(ids):,} tokens, but from 2 to {MAX_TOKENS:,} can be scored. Use another text.",
            param="text",
        )
    return inspect_tokens(model, ids, tokenizer, top=top, context=context, stride=stride)


def _attention(acquired: AcquiredModel, body: AttentionRequest) -> dict[str, object]:
    config = acquired.loaded.model.config
    for name, value, count in (("layer", body.layer, config.n_layer), ("head", body.head, config.n_head)):
        if value >= count:
            raise RequestError(f"{name} must be from 0 to {count - 1}, got {value}.", param=name)
    ids, head = _attention_ids(acquired, body)
    device = next(acquired.loaded.model.parameters()).device
    weights = attention_weights(acquired.loaded.model, torch.tensor(ids, device=device), body.layer, body.head)
    token_bytes = acquired.loaded.tokenizer.token_bytes
    return {
        **head,
        "layer": body.layer,
        "head": body.head,
        "tokens": [Token(id, token_bytes[id]).to_json() for id in ids],
        "weights": [
            row[: position + 1] for position, row in enumerate(weights.cpu().double().numpy().round(7).tolist())
        ],
    }


def _attention_heads(acquired: AcquiredModel, body: HeadsRequest) -> dict[str, object]:
    ids, head = _attention_ids(acquired, body)
    device = next(acquired.loaded.model.parameters()).device
    maps = attention_maps(acquired.loaded.model, torch.tensor(ids, device=device), MAP_CELLS)
    percents = cast("list[list[list[list[int]]]]", (100 * maps).round().int().cpu().numpy().tolist())
    triangles = [[[row[: end + 1] for end, row in enumerate(one)] for one in layer] for layer in percents]
    return {**head, "maps": triangles}


def _attention_ids(acquired: AcquiredModel, body: HeadsRequest) -> tuple[list[int], dict[str, object]]:
    """The tokens whose attention is shown, and what both replies begin with."""
    config = acquired.loaded.model.config
    ids = acquired.loaded.tokenizer.encode(body.text)
    count, limit = len(ids), min(MAX_ATTENTION_TOKENS, config.block_size)
    if count == 0 or (count > limit and not body.truncate):
        raise RequestError(
            f"the text has {count:,} tokens, but attention is shown for 1 to {limit:,}. Use another text.",
            param="text",
        )
    return ids[:limit], {
        "model": acquired.ref.name,
        "layers": config.n_layer,
        "heads": config.n_head,
        "text_tokens": count,
    }


def _reply(value: object) -> Response:
    return LongJsonReply(with_number_texts(value))
