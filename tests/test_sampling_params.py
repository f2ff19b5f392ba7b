"""Sampling parameters: the range of each value, and an import without torch."""

import math
import subprocess
import sys

import pytest

from tokenloom.config import SampleConfig
from tokenloom.errors import UsageError
from tokenloom.sampling_params import SamplingParams


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 1e-30},
        {"top_k": 0},
        {"top_k": -5},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.nan},
        {"presence_penalty": 2.5},
        {"presence_penalty": math.nan},
        {"frequency_penalty": -2.5},
        {"frequency_penalty": math.inf},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_rejected_in_one_line_that_names_it(values):
    ((name, value),) = values.items()
    with pytest.raises(UsageError) as rejected:
        SamplingParams(**values)
    assert name in str(rejected.value)
    assert str(value) in str(rejected.value)
    assert "\n" not in str(rejected.value)


@pytest.mark.parametrize(("temperature", "is_greedy"), [(0.0, True), (1e-6, False), (0.8, False)])
def test_decoding_is_greedy_at_temperature_zero(temperature, is_greedy):
    assert SamplingParams(temperature=temperature).is_greedy == is_greedy


def test_importing_them_does_not_import_torch():
    code = "import sys, tokenloom.sampling_params; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_samples_during_training_have_the_same_parameters_where_they_have_any():
    assert SampleConfig.model_fields["temperature"].default == SamplingParams().temperature
