"""Numbers in a configuration: integers are exact and have at most 64 bits, and true is not 1."""

from __future__ import annotations

from typing import get_args

# What a generator of random numbers takes as its seed; a smaller bound is up to the field.
_LARGEST_INTEGER = 2**64 - 1


def check_number(value: object, annotation: object) -> None:
    """Raise `ValueError` if a value, of any type or as text, is not a number that a field may have."""
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


def _integer(value: object) -> int | None:
    """The integer that a value is or that a text shows; None if it is none."""
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else None
    except ValueError:
        return None
