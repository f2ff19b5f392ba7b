"""Values in a configuration: integers are exact, true is not 1, and one line says why a value is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from pydantic import ValidationError

# What a generator of random numbers takes as its seed; a smaller bound is up to the field.
_LARGEST_INTEGER = 2**64 - 1


def check_number(value: object, annotation: object) -> None:
    """Raise `ValueError` if a value, of any type or as text, is not a number that a field may have.

    An integer has at most 64 bits.
    """
    kinds = get_args(annotation) or (annotation,)
    if value is None or not {int, float} & set(kinds):
        return
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value!r}. Write one.")
    if int in kinds:
        number = _integer(value)
        if number is None:
            raise ValueError(f"must be an integer, got {value!r}. Write a whole number.")
        if abs(number) > _LARGEST_INTEGER:
            raise ValueError(f"must be below 2^64, got {value!r}. Write a smaller number.")


def check_changes(changes: Sequence[tuple[int, int]], max_steps: int) -> None:
    """Raise `ValueError` if `max_steps` cannot have had these `TrainConfig.earlier_max_steps`."""
    last = 0
    for (step, before), (_, after) in pairwise([*changes, (0, max_steps)]):
        if not last < step <= min(before, after):
            raise ValueError(
                f"train.earlier_max_steps: train.max_steps cannot have changed from {before:,} to {after:,} at step "
                f"{step:,}, after step {last:,}. Remove train.earlier_max_steps."
            )
        last = step


def validation_message(error: ValidationError, section: str = "") -> str:
    """One line for the first problem that pydantic reports; its location is relative to `section`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in (*filter(None, [section]), *first["loc"]))
    if first["type"] == "value_error":
        message = str(first.get("ctx", {}).get("error"))
        return f"{key}: {message}" if first["loc"] else message
    problem = first["msg"][0].lower() + first["msg"][1:]
    return f"{key}: {problem}, got {first['input']!r}. Change {key}."


def _integer(value: object) -> int | None:
    """The integer that a value is or that a text shows; None if it is none."""
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else None
    except ValueError:
        return None
