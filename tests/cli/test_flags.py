"""Flags derived from the configuration classes: one for every field, under its full and its short name."""

import pytest
from cyclopts import App

from tokenloom.cli.flags import (
    FIELD_GROUPS,
    NOT_FLAGS,
    SHORT_NAMES,
    DataFlags,
    ModelFlags,
    ReadingFlags,
    SampleFlags,
    TrainFlags,
    given,
)
from tokenloom.cli.train import train
from tokenloom.config import config_keys, config_sections

FLAGS = {"model": ModelFlags, "data": DataFlags, "train": TrainFlags, "sample": SampleFlags}


def parse(*argv):
    """The flags of `train` by section, as `Config.of` takes them."""
    _, bound, _ = App(default_command=train).parse_args(list(argv), exit_on_error=False, print_error=False)
    names = {"model": "model", "data_": "data", "train": "train", "sample": "sample"}
    return {names[name]: given(value) for name, value in bound.arguments.items() if name in names}


def test_every_field_is_a_flag_with_its_default():
    for section, kind in config_sections().items():
        fields = {name: field.default for name, field in kind.model_fields.items()}
        flags = {name: field.default for name, field in FLAGS[section].model_fields.items()}
        assert flags == {name: value for name, value in fields.items() if f"{section}.{name}" not in NOT_FLAGS}


def test_the_tables_name_only_existing_fields():
    assert {*SHORT_NAMES, *FIELD_GROUPS, *NOT_FLAGS} <= set(config_keys())


def test_only_the_flags_that_were_given_are_set():
    assert parse() == {}
    assert parse("--train.max-steps", "5") == {"train": {"max_steps": 5}}


@pytest.mark.parametrize(
    ("argv", "settings"),
    [
        (["--seed", "3"], {"train": {"seed": 3}}),
        (["--train.seed", "3"], {"train": {"seed": 3}}),
        (["--compile"], {"train": {"compile": True}}),
        (["--no-compile"], {"train": {"compile": False}}),
        (["--train.no-compile"], {"train": {"compile": False}}),
        (["--tokenizer", "byte"], {"data": {"tokenizer": "byte"}}),
        (["--add-token", "<a>", "--add-token", "<b>"], {"data": {"add_tokens": ("<a>", "<b>")}}),
        (["--prompt", "Once", "--prompt", ""], {"sample": {"prompts": ("Once", "")}}),
        (["--train.grad-clip", "none"], {"train": {"grad_clip": None}}),
        (["--train.learning-rate", "1e-3"], {"train": {"learning_rate": 1e-3}}),
    ],
    ids=str,
)
def test_short_and_full_names_set_the_same_field(argv, settings):
    assert parse(*argv) == settings


def test_a_subset_of_a_section_has_only_those_flags():
    assert set(ReadingFlags.model_fields) == {"text_key", "encoding_errors", "endoftext"}
