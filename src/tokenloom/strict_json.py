"""JSON as its standard defines it: a number that is not finite is written as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast


def dump_json(value: object, *, indent: int | None = None) -> str:
    """The JSON of a value, for every reader; NaN and the infinities, which JSON does not have, become null.

    The perplexity of a large loss is such a number: it exceeds every float.
    """
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, allow_nan=False)


def load_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises `ValueError` if it is invalid, or nested too deeply for Python."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(value: object) -> object:
    """The same value with None for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast("list[object]", value)]
    return value
