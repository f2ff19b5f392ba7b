"""Generated requests, valid and invalid: every reply fits the schema in /openapi.json, and none is a server error.

Longer: `pytest -m slow tests/serving/test_schema_conformance.py`, which is what `make slow` runs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# What the schema cannot say, such as the size of the vocabulary, is refused with 400.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "404"]
"""
COMMAND = Path(sys.executable).with_name("schemathesis")


def check(server, folder: Path, *options: str) -> None:
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [
        COMMAND,
        "--config-file",
        config,
        "run",
        f"{server.url}/openapi.json",
        "--seed",
        "1",
        "--warnings",
        "off",
        *options,
    ]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-10_000:] + result.stderr
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", result.stdout).groups()
    assert int(generated) == int(passed) > 0


def test_every_field_at_and_beyond_its_bounds(server, tmp_path):
    check(server, tmp_path, "--phases", "coverage", "--include-path", "/v1/completions")


def test_a_few_generated_requests_for_every_path(server, tmp_path):
    check(server, tmp_path, "--phases", "fuzzing", "--max-examples", "3")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_2000_generated_requests_for_completions(server, tmp_path):
    check(
        server, tmp_path, "--phases", "coverage,fuzzing", "--max-examples", "2000", "--include-path", "/v1/completions"
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_generated_requests_for_every_other_path(server, tmp_path):
    options = ["--phases", "coverage,fuzzing", "--max-examples", "200", "--exclude-path", "/v1/completions"]
    check(server, tmp_path, *options)
