"""The settings that a search tries: ranges and choices, and one line for each kind of mistake."""

import pytest

from tokenloom.errors import UsageError
from tokenloom.tuning.space import Choices, Range, as_settings, combinations, number_of_combinations, parse_space


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("train.learning-rate", "1e-4..1e-2:log", Range(1e-4, 1e-2, log=True)),
        ("train.learning_rate", "1..2", Range(1.0, 2.0)),
        ("--model.n-layer", "2..6", Range(2, 6)),
        ("model.n-embd", "32..256:log", Range(32, 256, log=True)),
        ("train.max-steps", "1000000..2500001", Range(1_000_000, 2_500_001)),
        ("train.learning-rate", "0.00123456789..0.1", Range(0.00123456789, 0.1)),
        ("train.weight-decay", "0.01, 0.1,0.5", Choices((0.01, 0.1, 0.5))),
        ("train.weight-decay", [0, 0.1], Choices((0.0, 0.1))),
        ("train.grad-clip", "none,1", Choices((None, 1.0))),
        ("model.tie-embeddings", "true,false", Choices((True, False))),
        ("data.tokenizer", "char,bpe:512", Choices(("char", "bpe:512"))),
    ],
)
def test_candidates_have_the_type_of_their_setting(name, candidates, expected):
    ((key, parsed),) = parse_space({name: candidates}).items()
    assert key == name.lstrip("-").replace("-", "_")
    assert parsed == expected
    assert type(parsed.low if isinstance(parsed, Range) else parsed.values[0]) is type(
        expected.low if isinstance(expected, Range) else expected.values[0]
    )
    assert parse_space({key: str(parsed)})[key] == parsed


@pytest.mark.parametrize(
    ("name", "candidates", "message"),
    [
        ("train.learning-rte", "1..2", "unknown setting.*Did you mean train.learning-rate"),
        ("lr", "1..2", "Did you mean train.learning-rate"),
        ("zzz", "1..2", "unknown setting.*train --help"),
        ("train.learning-rate", "2..1", "is empty: 2..1. Write the smaller"),
        ("train.learning-rate", "1..1", "is empty"),
        ("train.weight-decay", "0..1:log", "no logarithm. Omit :log"),
        ("train.learning-rate", "1..2:ln", 'no scale "ln"'),
        ("train.learning-rate", "-1..2", "train.learning_rate.*greater than 0"),
        ("train.learning-rate", "a..b", "train.learning_rate"),
        ("model.n-layer", "1.5..2", "must be an integer"),
        ("model.n-layer", "0..2", "greater than 0"),
        ("train.optimizer", "adamw..muon", "has no range.*List its choices"),
        ("train.optimizer", "adamw,sgd", "train.optimizer"),
        ("train.optimizer", "adamw", "needs a range.*or different choices"),
        ("train.optimizer", "adamw,adamw", "different choices"),
        ("train.optimizer", "", "train.optimizer"),
        ("data.val-fraction", "0.1,0.2", "cannot be tried: it changes the validation text"),
        ("data.workers", "1,2", "does not change the result"),
        ("data.add-tokens", "a,b", "it is a list"),
        ("sample.top-k", "1..5", "samples do not change"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(name, candidates, message):
    with pytest.raises(UsageError, match=message) as error:
        parse_space({name: candidates})
    assert "\n" not in str(error.value)


def test_a_setting_is_tried_once():
    with pytest.raises(UsageError, match="train.learning-rate is tried twice"):
        parse_space({"train.learning-rate": "1..2", "train.learning_rate": "2..3"})


def test_a_search_tries_something():
    with pytest.raises(UsageError, match="nothing to try"):
        parse_space({})


def test_values_become_nested_settings():
    nested = as_settings({"train.beta1": 0.9, "model.n_layer": 2, "train.beta2": 0.99})
    assert nested == {"train": {"beta1": 0.9, "beta2": 0.99}, "model": {"n_layer": 2}}


def test_choices_and_ranges_of_integers_have_a_number_of_combinations():
    space = parse_space({"model.n_layer": "2..4", "train.grad_clip": "none,1"})
    assert number_of_combinations(space) == 6
    assert list(combinations(space)) == [
        {"model.n_layer": layers, "train.grad_clip": clip} for layers in (2, 3, 4) for clip in (None, 1.0)
    ]
    space = parse_space({"model.n_layer": "2..4", "train.weight_decay": "0..1"})
    assert number_of_combinations(space) is None
    assert list(combinations(space)) == []
