"""Flags derived from the configuration classes: `TrainConfig.max_steps` is `--train.max-steps`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, create_model

from tokenloom.config import Config, Section

# Said otherwise on the command line: as the positional DATA, and as --prompt.
ELSEWHERE = ("sources", "prompts")


def section_flags(section: str) -> type[Section]:
    """The flags of a section, each optional, unchecked but for its type: `Config.of` checks the whole."""
    fields: dict[str, Any] = {
        name: (field.annotation, Field(default=field.default, description=field.description))
        for name, field in Config.model_fields[section].annotation.model_fields.items()  # type: ignore[union-attr]
        if name not in ELSEWHERE
    }
    return create_model(section, __base__=Section, **fields)


ModelFlags = section_flags("model")
DataFlags = section_flags("data")
TrainFlags = section_flags("train")
SampleFlags = section_flags("sample")


def given(flags: Section | None) -> dict[str, Any]:
    """Only what was typed, so that a preset or file underneath shows through."""
    return {} if flags is None else {name: getattr(flags, name) for name in flags.model_fields_set}
