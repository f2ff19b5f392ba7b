"""Texts over HTTP that are compared with the training text of a run: which passages are copied from it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from tokenloom.errors import DataError
from tokenloom.run_folder import RunFolder
from tokenloom.serving.errors import RequestError
from tokenloom.serving.explanation_api import MAX_CHARACTERS, TextField
from tokenloom.serving.replies import JsonReply
from tokenloom.serving.request_schema import Body
from tokenloom.serving.run_replies import CopiedReply
from tokenloom.serving.runs_api import find_run
from tokenloom.serving.services import Services, services_of

MAX_TEXTS = 64

router = APIRouter(prefix="/api", tags=["runs"])


class CopiedRequest(Body):
    """Texts that are compared with the training text of a run."""

    texts: Annotated[list[TextField], Field(min_length=1, max_length=MAX_TEXTS)]


@router.post("/runs/{id:path}/copied", response_model=CopiedReply)
async def find_copied(request: Request, id: str, body: CopiedRequest) -> Response:
    """The passages of each text that are copied word for word from the training text.

    If the training text is no longer there, `problem` says so, and nothing is compared.
    """
    characters = sum(map(len, body.texts))
    if characters > MAX_CHARACTERS:
        raise RequestError(
            f"the texts have {characters:,} characters, but at most {MAX_CHARACTERS:,} are compared. Send fewer.",
            param="texts",
        )
    services = services_of(request)
    run = await services.in_reading_thread(lambda: find_run(services.store, id))
    return await services.in_explaining_thread(lambda: JsonReply(_find_copied(services, run, body.texts)))


def _find_copied(services: Services, run: RunFolder, texts: list[str]) -> dict[str, object]:
    try:
        training_text = services.training_texts.of_run(run)
    except DataError as error:
        return {"problem": str(error), "texts": []}
    return {"problem": None, "texts": [training_text.find_copied(text).to_json() for text in texts]}
