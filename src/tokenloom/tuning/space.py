"""The settings that a search tries: a range of numbers or a list of choices for each, parsed and validated."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from tokenloom.config import Settings, config_keys, config_sections, suggest_key
from tokenloom.config_values import validation_message
from tokenloom.errors import ConfigError, UsageError

Value = int | float | str | bool | None

_RANGE = re.compile(r"(?P<low>[^,]+?)\.\.(?P<high>[^,:]+)(?::(?P<scale>.*))?", flags=re.DOTALL)
_DATA = "it changes the validation text, so the trials could not be compared"
_SAMPLES = "samples do not change the validation loss"
# Settings with which trials would not be comparable, or would all be equal.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("data.sources", "data.val_fraction", "data.text_key", "data.encoding_errors", "data.endoftext"), _DATA
    ),
    "data.workers": "it does not change the result",
}


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`: integers if both are integers; `log` draws from their logarithms."""

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{_exact(self.low)}..{_exact(self.high)}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """A list of values."""

    values: tuple[Value, ...]

    def __str__(self) -> str:
        return ",".join("none" if value is None else str(value) for value in self.values)


Candidates = Range | Choices
Space = Mapping[str, Candidates]
"""What to try for each setting, by its key (`train.learning_rate`)."""


def parse_space(tries: Mapping[str, str | Sequence[Value]]) -> dict[str, Candidates]:
    """The space in which to search; raises `UsageError`.

    Keys are `section.field`, also as flags (`train.learning-rate`). Values are texts, `low..high`, `low..high:log` or
    choices with commas between them, or sequences of choices.
    """
    if not tries:
        raise UsageError("there is nothing to try. Add a setting, such as --try train.learning-rate=1e-4..1e-2:log")
    space: dict[str, Candidates] = {}
    for name, candidates in tries.items():
        key = _known_key(name)
        if key in space:
            raise UsageError(f"{flag_name(key)} is tried twice. Write all its values in one --try.")
        space[key] = parse_candidates(key, candidates)
    return space


def parse_candidates(key: str, candidates: str | Sequence[Value]) -> Candidates:
    """The range or the choices of one setting; raises `UsageError`."""
    if isinstance(candidates, str):
        if found := _RANGE.fullmatch(candidates.strip()):
            return _range(key, found["low"].strip(), found["high"].strip(), found["scale"])
        candidates = [value.strip() for value in candidates.split(",")]
    values = tuple(_valid(key, value) for value in candidates)
    if len(values) < 2 or len(set(values)) < len(values):
        given = ",".join(map(str, candidates))
        raise UsageError(
            f"{flag_name(key)} needs a range, such as 1..4, or different choices, such as 1,2,4; got {given!r}."
        )
    return Choices(values)


def as_settings(values: Mapping[str, Value]) -> Settings:
    """Values by key as nested `Settings`."""
    nested: dict[str, dict[str, Value]] = {}
    for key, value in values.items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    return nested


def number_of_combinations(space: Space) -> int | None:
    """How many combinations of values there are; None if a range has any number between two."""
    values = [_values(candidates) for candidates in space.values()]
    return None if None in values else math.prod(len(each) for each in values if each is not None)


def combinations(space: Space) -> Iterator[dict[str, Value]]:
    """All combinations of values by key; none if their number is not finite."""
    for values in itertools.product(*(_values(candidates) or () for candidates in space.values())):
        yield dict(zip(space, values, strict=True))


def flag_name(key: str) -> str:
    """A key as the command line spells it, without dashes in front: train.learning-rate."""
    return key.replace("_", "-")


def _known_key(name: str) -> str:
    key = name.strip().lstrip("-").replace("-", "_")
    if key not in config_keys():
        suggestion = suggest_key(key)
        hint = f"Did you mean {flag_name(suggestion)}?" if suggestion else "tokenloom train --help lists the settings."
        raise UsageError(f'unknown setting "{name}". {hint}')
    section, field = key.split(".")
    reason = _SAMPLES if section == "sample" else REFUSED.get(key)
    if isinstance(config_sections()[section].model_fields[field].default, tuple):
        reason = reason or "it is a list"
    if reason:
        raise UsageError(f"{flag_name(key)} cannot be tried: {reason}. Try another setting.")
    return key


def _range(key: str, low_text: str, high_text: str, scale: str | None) -> Range:
    low, high = _valid(key, low_text), _valid(key, high_text)
    name, given = flag_name(key), f"{low_text}..{high_text}"
    if not _is_number(low) or not _is_number(high):
        raise UsageError(f"{name} is not a number, so it has no range, got {given}. List its choices: A,B,C")
    if scale not in (None, "log"):
        raise UsageError(f'a range has no scale "{scale}". Write {name}={given} or {name}={given}:log')
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if low >= high:
        raise UsageError(f"the range of {name} is empty: {given}. Write the smaller number first.")
    if scale == "log" and low <= 0:
        raise UsageError(f"the range of {name} begins at {low:g}, which has no logarithm. Omit :log, or begin above 0.")
    return Range(low, high, log=scale == "log")


def _values(candidates: Candidates) -> Sequence[Value] | None:
    """All values; None if they are any numbers between two."""
    if isinstance(candidates, Choices):
        return candidates.values
    if isinstance(candidates.low, int) and isinstance(candidates.high, int):
        return range(candidates.low, candidates.high + 1)
    return None


def _valid(key: str, value: Value) -> Value:
    """A value as its configuration class converts it; raises `ConfigError`."""
    section, field = key.split(".")
    try:
        checked = config_sections()[section].model_validate({field: value})
    except ValidationError as error:
        raise ConfigError(validation_message(error, section)) from None
    return getattr(checked, field)


def _exact(number: float) -> str:
    """The shortest text of exactly this number: 1 and 0.001, but also 1000001, which six digits would round."""
    text = f"{number:g}"
    return text if isinstance(number, float) and float(text) == number else repr(number)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
