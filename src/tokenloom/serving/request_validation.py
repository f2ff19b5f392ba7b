"""One line for a request whose body or query does not fit its schema, and the field at fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tokenloom.errors import shortened
from tokenloom.serving.errors import RequestError
from tokenloom.strict_json import dump_json


def invalid_request(errors: Sequence[Any]) -> RequestError:
    """The error for what pydantic found, of which the first is reported."""
    first = cast("Mapping[str, Any]", errors[0])
    kind, context = str(first["type"]), cast("Mapping[str, Any]", first.get("ctx") or {})
    path = [str(part) for part in first["loc"][1:]]
    param = path[0] if path and kind != "json_invalid" else context.get("param")
    return RequestError(_message(kind, path, first, context), param=None if param is None else str(param))


def _message(kind: str, path: Sequence[str], error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    name = _field(path)
    if kind == "request":
        return str(context["message"])
    if kind == "json_invalid":
        return f"the body is not valid JSON: {context.get('error')} at character {path[0]}. Correct it."
    if kind == "missing":
        return f"{name} is missing. Add it." if path else "the body is missing. Send a JSON object."
    if not path:
        return "the body must be a JSON object. Send one, as in the examples of OpenAI's API."
    problem = str(error["msg"])
    value = shortened(dump_json(error.get("input")), limit=60)
    return f"{name}: {problem[:1].lower()}{problem[1:]}, got {value}. Change {name}."


def _field(path: Sequence[str]) -> str:
    """The name of a field or of its element, as in stop[2]."""
    return "".join(
        f"[{part}]" if part.isdecimal() and number else (f".{part}" if number else part)
        for number, part in enumerate(shortened(part, limit=40) for part in path)
    )
