"""Suggestions for mistyped keys and for the names of other tools."""

import pytest

from tokenloom.config_aliases import nearest_key

KEYS = ["model.n_layer", "model.n_head", "train.max_steps", "train.seed", "sample.seed"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("max_iters", "train.max_steps"),  # an alias
        ("train.max-iters", "train.max_steps"),  # as a flag, in a section
        ("model.max_steps", "train.max_steps"),  # the field of another section
        ("MAX_STEP", "train.max_steps"),  # misspelled
        ("model.n_layr", "model.n_layer"),
        ("xyzzy", None),
    ],
)
def test_a_name_leads_to_the_key_that_it_most_likely_stands_for(name, key):
    assert nearest_key(name, KEYS) == key
