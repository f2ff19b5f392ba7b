"""What /openapi.json says of replies: the base of their classes, and numbers that JSON does not have."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"]
"""A number, or the name of one that is not finite."""


class Reply(BaseModel):
    """A reply, or a part of one, which has no other fields than these."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
