"""JSON without NaN and Infinity."""

import json
import math
import re
from pathlib import Path

import pytest

import tokenloom
from tokenloom.strict_json import dump_json, load_json


def test_numbers_that_are_not_finite_become_null():
    value = {"a": math.inf, "b": [1.5, -math.inf, (math.nan, {"c": math.nan})], "d": "NaN", "e": None, "f": True}
    parsed = json.loads(dump_json(value), parse_constant=pytest.fail)
    assert parsed == {"a": None, "b": [1.5, None, [None, {"c": None}]], "d": "NaN", "e": None, "f": True}


def test_finite_values_are_written_as_by_the_standard_library():
    value = {"a": [1, 2.5, "é"], "b": {}}
    assert dump_json(value) == json.dumps(value)
    assert dump_json(value, indent=2) == json.dumps(value, indent=2)


def test_commands_and_run_files_write_json_by_this_function_only():
    package = Path(tokenloom.__file__).parent
    writers = [*package.glob("cli/*.py"), *package.glob("*.py"), package / "weights" / "checkpoint.py"]
    users = {file.name for file in writers if re.search(r"\bjson\w*\.dumps?\(", file.read_text(encoding="utf-8"))}
    assert users == {"strict_json.py"}


def test_json_that_is_nested_too_deeply_is_invalid():
    assert load_json('{"a": [1, null]}') == {"a": [1, None]}
    for text in ("[" * 100_000, "{", b"\xff", "1" * 5000):
        with pytest.raises(ValueError):
            load_json(text)
