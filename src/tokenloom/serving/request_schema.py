"""The bodies of requests: the base of their classes, which refuses unknown fields and names the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import ClassVar, cast

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from tokenloom.errors import shortened


class Body(BaseModel):
    """The body of a request. A field that it does not have is an error: a misspelled one would change the result."""

    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    OTHER_NAMES: ClassVar[Mapping[str, str]] = {}
    """Names that other programs have for fields."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: object) -> object:
        if isinstance(values, Mapping):
            unknown = next(
                (name for name in cast("Mapping[str, object]", values) if name not in cls.model_fields), None
            )
            if unknown is not None:
                name = shortened(unknown.encode("utf-8", "backslashreplace").decode(), 40)  # may be no valid Unicode
                raise request_error(f"there is no field {name}. {cls._suggestion(unknown)}", name)
        return cast("object", values)

    @classmethod
    def _suggestion(cls, name: str) -> str:
        fields = list(cls.model_fields)
        known = cls.OTHER_NAMES.get(name)
        nearest = [known] if known is not None else difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
        return f"Did you mean {nearest[0]}?" if nearest else f"There are: {', '.join(fields)}."


def request_error(message: str, param: str | None = None) -> PydanticCustomError:
    """An error whose message is written as it is; `param` names the field, if pydantic does not."""
    return PydanticCustomError("request", "{message}", {"message": message, "param": param})
