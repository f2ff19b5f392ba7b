"""Flags derived from the configuration classes: `TrainConfig.max_steps` becomes `--train.max-steps`.

A new field of a section is a new flag, with the field's docstring as its help text, in the group of its section. The
tables below only add a short name, or move a flag to another group.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from tokenloom.cli.parameters import CHECKPOINTS, DATA, HARDWARE, MODEL, SAMPLES, TRAINING
from tokenloom.config import Section, config_sections

SHORT_NAMES: Mapping[str, str] = {
    "data.tokenizer": "--tokenizer",
    "data.add_tokens": "--add-token",
    "data.val_fraction": "--val-fraction",
    "data.workers": "--workers",
    "train.init_from": "--init-from",
    "train.init_optimizer": "--init-optimizer",
    "train.seed": "--seed",
    "train.device": "--device",
    "train.precision": "--precision",
    "train.strategy": "--strategy",
    "train.compile": "--compile",
    "sample.prompts": "--prompt",
}
# Settings that have no flag, and how they are set instead.
NOT_FLAGS: Mapping[str, str] = {
    "data.sources": "On the command line, DATA.",
    "train.earlier_max_steps": "Not a flag: training sets it.",
}

SECTION_GROUPS: Mapping[str, Group] = {"data": DATA, "model": MODEL, "train": TRAINING, "sample": SAMPLES}
FIELD_GROUPS: Mapping[str, Group] = {
    **dict.fromkeys(("train.init_from", "train.init_optimizer"), MODEL),
    **dict.fromkeys(
        (
            "train.log_interval",
            "train.eval_interval",
            "train.eval_batches",
            "train.patience",
            "train.save_interval",
            "train.keep_checkpoints",
            "train.tensorboard",
        ),
        CHECKPOINTS,
    ),
    **dict.fromkeys(
        (
            "train.device",
            "train.precision",
            "train.strategy",
            "train.replicas",
            "train.compile",
            "train.micro_batch_size",
            "train.activation_checkpointing",
        ),
        HARDWARE,
    ),
}


class Flags(Section):
    """Base of the flags of a section; validators are built when flags are parsed, which keeps --help fast."""

    model_config = ConfigDict(defer_build=True)


def section_flags(section: str, *only: str) -> type[Flags]:
    """The fields of a section, or `only` some of them, as flags.

    All are optional and only their types are checked: `Config.of` validates the merged configuration.
    """
    fields: dict[str, Any] = {
        name: (_flag_type(section, name, field), Field(default=field.default))
        for name, field in config_sections()[section].model_fields.items()
        if f"{section}.{name}" not in NOT_FLAGS and (not only or name in only)
    }
    return create_model(section, __base__=Flags, **fields)


def given(flags: Flags | None) -> dict[str, object]:
    """The flags that were given on the command line; all others keep the value of the preset or file."""
    return {} if flags is None else {name: getattr(flags, name) for name in flags.model_fields_set}


def _flag_type(section: str, name: str, field: FieldInfo) -> object:
    key = f"{section}.{name}"
    repeatable = isinstance(field.default, tuple)
    names = [SHORT_NAMES[key], f"--{key.replace('_', '-')}"] if key in SHORT_NAMES else None
    parameter = Parameter(
        name=names,
        group=FIELD_GROUPS.get(key, SECTION_GROUPS[section]),
        help=f"{field.description} Can be repeated." if repeatable else field.description,
        negative="" if repeatable else None,
        show_default=False if repeatable else None,
    )
    return Annotated[field.annotation, parameter]


if TYPE_CHECKING:
    ModelFlags = DataFlags = ReadingFlags = TokenizerFlags = TrainFlags = SampleFlags = SampleLengthFlags = Flags
else:
    ModelFlags = section_flags("model")
    DataFlags = section_flags("data")
    ReadingFlags = section_flags("data", "text_key", "encoding_errors", "endoftext")
    TokenizerFlags = section_flags("data", "tokenizer", "add_tokens")
    TrainFlags = section_flags("train")
    SampleFlags = section_flags("sample")
    SampleLengthFlags = section_flags("sample", "max_new_tokens")
